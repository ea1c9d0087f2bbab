"""POST, PUT and PATCH: bodies become objects, `Objects` writes them, and who owns which field is kept beside them."""

from collections.abc import Callable
from typing import Any

from korch.api import incoming
from korch.api.answers import Refusal, bad_request, conflict, translate
from korch.api.entries import Entry, from_plain
from korch.api.incoming import Incoming
from korch.api.owners import owner
from korch.api.requestinfo import RequestInfo
from korch.api.target import Body, Options, Target, Written, without
from korch.api.wire import ownership, patches, strict
from korch.api.wire.shapes import Shape
from korch.errors import AlreadyExistsError, KorchError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.prepare import Track
from korch.objects.values import Clock
from korch.resources.codec import to_dict, with_meta
from korch.resources.kinds import Kind
from korch.resources.meta import Object
from korch.resources.times import rfc3339

_TRIES = 4


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
        came = target.typed({**after, "metadata": without(after["metadata"], "resourceVersion")}, "Ignore")
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
