"""POST, PUT and PATCH: bodies become objects, `Objects` writes them, and who owns which field is kept beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from korch.api import incoming
from korch.api.answers import Refusal, bad_request, conflict, translate
from korch.api.entries import Entry, from_plain
from korch.api.incoming import Incoming, Validation
from korch.api.owners import owner
from korch.api.requestinfo import RequestInfo
from korch.api.versions import Version
from korch.api.wire import ownership, patches, strict
from korch.api.wire.shapes import Shape
from korch.errors import AlreadyExistsError, ForbiddenError, KorchError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.prepare import Track
from korch.objects.values import Clock
from korch.resources.codec import to_dict, with_meta
from korch.resources.defaults import with_defaults
from korch.resources.kinds import Kind
from korch.resources.meta import Object
from korch.resources.times import rfc3339

Check = Callable[[Object, Object | None], None]  # of the new object and the old one

_MANAGER_CHARS = 128
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Options:
    """How to write, from the query. `manager` owns what is written; `named`: the query itself names it."""

    dry_run: bool = False
    manager: str = "unknown"
    validation: Validation = "Warn"
    force: bool = False
    named: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What came with the request."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where it is written: `part` is "" or "status". `check` refuses what the writer may not say."""

    version: Version
    namespace: str
    name: str
    part: str = ""
    check: Check | None = None

    @property
    def kind(self) -> Kind:
        """What is stored."""
        return self.version.kind

    def incoming(self, data: dict[str, Any]) -> dict[str, Any]:
        """A body as the object that is stored: with what the URL says, and without what is written elsewhere."""
        said = incoming.addressed(self.version.shown, data, self.namespace, self.name)
        return _relevant(self, self.version.stored(said))

    def typed(
        self,
        data: dict[str, Any],
        validation: Validation,
        duplicates: list[str] | None = None,
        known: tuple[str, ...] = (),
    ) -> Incoming:
        """The typed object of stored data; `known` are warnings that are not told again."""
        structure = self.version.structure
        return incoming.typed(self.kind, data, validation, duplicates=duplicates, known=known, structure=structure)

    def checked(self, new: Object, old: Object | None) -> Object:
        """The new object, as it shall stand where the old one does."""
        if self.check is not None:
            name = self.name or new.metadata.name
            self.check(with_meta(with_defaults(new), name=name, namespace=self.namespace), old)
        return new

    @property
    def shape(self) -> Shape | None:
        """How lists of a custom object merge; None for kinds that are known."""
        return self.version.structure.shape if self.version.structure is not None else None


@dataclass(slots=True)
class Written:
    """What stands now."""

    entry: Entry
    created: bool = False
    warnings: tuple[str, ...] = field(default=())


def options_of(query: Mapping[str, str], user_agent: str) -> Options:
    """How to write; 400 for options that are none."""
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise _bad_option("fieldValidation", validation, '"", "Ignore", "Strict", "Warn"')
    manager = query.get("fieldManager", "")
    if len(manager) > _MANAGER_CHARS or not manager.isprintable():
        raise bad_request(f"fieldManager: Invalid value: at most {_MANAGER_CHARS} printable characters")
    return Options(
        dry_run=is_dry(query.get("dryRun", "")),
        manager=manager or user_agent.partition("/")[0][:_MANAGER_CHARS] or "unknown",
        validation=cast("Validation", validation),
        force=query.get("force", "").lower() in ("true", "1"),
        named=bool(manager),
    )


def changing_only(user: str, check: Check | None) -> Check:
    """What refuses new objects of somebody who may only change them, and what `check` refuses."""

    def judge(new: Object, old: Object | None) -> None:
        if old is None:
            raise ForbiddenError(f'User "{user}" may change it and not create it')
        if check is not None:
            check(new, old)

    return judge


def is_dry(text: str) -> bool:
    """Whether nothing is to be written; 400 for a word that is not `All`."""
    if text not in ("", "All"):
        raise _bad_option("dryRun", text, '"All"')
    return bool(text)


def _bad_option(name: str, value: str, supported: str) -> Refusal:
    text = f'{name}: Unsupported value: "{value}": supported values: {supported}'
    return Refusal(422, f' "" is invalid: {text}'.strip())


class Writer:
    """Writes for one API."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects, self._clock = objects, clock

    async def create(self, target: Target, body: Body, options: Options) -> Written:
        """The new object."""
        kind = target.kind
        data, duplicates = incoming.parsed(body.data, body.content_type, options.validation)
        data = target.incoming(data)
        if data["metadata"].get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        came = target.typed(data, options.validation, duplicates)
        made = await self._insert(target, came.obj, self.track(options, shape=target.shape), options)
        return Written(shown(kind, made), created=True, warnings=came.warnings)

    async def _insert(self, target: Target, obj: Object, track: Track, options: Options) -> Object:
        target.checked(obj, None)
        try:
            return await self._objects.create(obj, track=track, dry_run=options.dry_run)
        except KorchError as error:
            raise _of_new(error, target, obj) from error

    async def replace(self, target: Target, body: Body, options: Options) -> Written:
        """The object as the body has it; its status, or everything but its status."""
        kind = target.kind
        data, duplicates = incoming.parsed(body.data, body.content_type, options.validation)
        data = target.incoming(data)
        came = target.typed(data, options.validation, duplicates)

        def change(stored: Object) -> Object:
            check_versions(kind, came.obj, stored)
            return came.obj

        return Written(await self._modify(target, change, options), warnings=came.warnings)

    async def patch(self, target: Target, body: Body, options: Options) -> Written:
        """The object after a patch."""
        if patches.media_type(body.content_type) == patches.APPLY_PATCH:
            return await self._apply(target, body, options)
        kind = target.kind
        patch = strict.parse_patch(body.data, body.content_type)
        duplicates = strict.duplicate_keys(body.data) if options.validation != "Ignore" else []
        warnings: tuple[str, ...] = ()

        def change(stored: Object) -> Object:
            nonlocal warnings
            live = plain(kind, stored)
            seen = target.version.out(live)
            after = patches.apply_patch(body.content_type, patch, seen, (kind.group, kind.name))
            came = self._changed(target, live, after, options, duplicates)
            check_versions(kind, came.obj, stored)
            warnings = came.warnings
            return came.obj

        return Written(await self._modify(target, change, options), warnings=warnings)

    def _changed(
        self, target: Target, live: dict[str, Any], after: dict[str, Any], options: Options, duplicates: list[str]
    ) -> Incoming:
        """The typed object of a change. Warnings are of what is new in it."""
        kind = target.kind
        data = target.incoming(after)
        came = target.typed(data, options.validation, duplicates)
        if not came.warnings:
            return came
        return target.typed(data, options.validation, duplicates, incoming.warnings_of(kind, live))

    async def _modify(
        self,
        target: Target,
        change: Callable[[Object], Object],
        options: Options,
        track: Track | None = None,
    ) -> Entry:
        status = target.part == "status"
        made = await self._objects.modify(
            target.kind.type,
            target.name,
            target.namespace,
            lambda stored: target.checked(change(stored), stored),
            status=status,
            track=track or self.track(options, subresource=target.part, shape=target.shape),
            dry_run=options.dry_run,
        )
        return shown(target.kind, made)

    # --- server-side apply ---

    async def _apply(self, target: Target, body: Body, options: Options) -> Written:
        """The object with what its applier says, without what it said before; created when it is not there."""
        _needs_manager(options)
        kind = target.kind
        applied = strict.parse_patch(body.data, body.content_type)
        duplicates = strict.duplicate_keys(body.data) if options.validation != "Ignore" else []
        applied = target.incoming(applied)
        if applied["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        applied, told = incoming.wish(kind, applied, options.validation, duplicates, target.version.structure)
        for _ in range(_TRIES):
            try:
                return Written(await self._apply_to_stored(target, applied, options), warnings=told)
            except NotFoundError:
                if target.part:
                    raise
            made = await self._apply_as_new(target, applied, options)
            if made is not None:
                return Written(made, created=True, warnings=told)
        raise conflict(kind, target.name)  # it comes and goes

    async def apply_part(self, target: Target, part: dict[str, Any], options: Options) -> Object:
        """The object after an apply of a part of it, such as its scale."""
        _needs_manager(options)
        applied = {"apiVersion": target.kind.api_version, "kind": target.kind.name, **part}
        return target.typed((await self._apply_to_stored(target, applied, options)).plain(), "Ignore").obj

    async def _apply_to_stored(self, target: Target, applied: dict[str, Any], options: Options) -> Entry:
        kind = target.kind

        def change(stored: Object) -> Object:
            live = plain(kind, stored)
            meta = applied["metadata"]
            version, uid = (str(meta.get(name) or "") for name in ("resourceVersion", "uid"))
            check_versions(kind, with_meta(stored, resource_version=version, uid=uid), stored)
            return target.typed(self._owned(live, applied, options, target), "Ignore").obj

        return await self._modify(target, change, options, track=_as_given)

    async def _apply_as_new(self, target: Target, applied: dict[str, Any], options: Options) -> Entry | None:
        """The new object; None when somebody else was faster."""
        kind = target.kind
        if applied["metadata"].get("uid"):
            raise conflict(kind, target.name, "uid mismatch: the object to apply to is gone")
        after = self._owned(None, applied, options, target)
        owners = tuple(after["metadata"].get("managedFields", ()))
        came = target.typed({**after, "metadata": _without(after["metadata"], "resourceVersion")}, "Ignore")
        target.checked(came.obj, None)
        try:
            made = await self._objects.create(came.obj, track=lambda *_: owners, dry_run=options.dry_run)
        except AlreadyExistsError:
            return None
        except NotFoundError as error:
            raise _of_new(error, target, came.obj) from error
        return shown(kind, made)

    def _owned(
        self, live: dict[str, Any] | None, applied: dict[str, Any], options: Options, target: Target
    ) -> dict[str, Any]:
        return ownership.apply(
            live,
            applied,
            manager=options.manager,
            force=options.force,
            now=rfc3339(self._clock.now()),
            subresource=target.part,
            shape=target.shape,
        )

    # --- ownership ---

    def track(self, options: Options, *, subresource: str = "", shape: Shape | None = None) -> Track:
        """What brings the owners of an object's fields up to date."""
        return owner(options.manager, self._clock.now, subresource=subresource, shape=shape)


def _needs_manager(options: Options) -> None:
    if not options.named:
        raise Refusal(
            422,
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
            {"causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "fieldManager"}]},
        )


def _as_given(before: Object | None, after: Object) -> tuple[dict[str, Any], ...]:
    """What an apply has worked out already; new times alone are no reason to write."""
    if before is not None and ownership.same_but_times(to_dict(before), to_dict(after)):
        return before.metadata.managed_fields
    return after.metadata.managed_fields


def _of_new(error: KorchError, target: Target, obj: Object) -> Refusal:
    """The refusal of a new object: its name stands in the body, not in the URL."""
    kind, meta = target.kind, obj.metadata
    name = meta.name or meta.generate_name
    info = RequestInfo("create", "", kind.group, kind.version, kind.plural, "", target.namespace, name)
    return translate(error, info, kind)


def _relevant(target: Target, data: dict[str, Any]) -> dict[str, Any]:
    """The data without a status, which is only written on its own path."""
    return data if target.part == "status" or not target.kind.has_status else _without(data, "status")


def _without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


def plain(kind: Kind, obj: Object) -> dict[str, Any]:
    """The object as clients see it."""
    return shown(kind, obj).plain()


def shown(kind: Kind, obj: Object) -> Entry:
    """The object as it is answered."""
    meta = obj.metadata
    return from_plain(kind, to_dict(obj), kind.key(meta.namespace, meta.name), int(meta.resource_version or 0))


def check_versions(kind: Kind, wanted: Object, stored: Object) -> None:
    """409 when the client saw another state, or means another object of that name."""
    version, uid = wanted.metadata.resource_version, wanted.metadata.uid
    if version not in ("", "0", stored.metadata.resource_version):
        raise conflict(kind, stored.metadata.name)
    if uid and uid != stored.metadata.uid:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {stored.metadata.uid}"
        raise conflict(kind, stored.metadata.name, why)
