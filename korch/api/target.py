"""A write as it is asked for: where, how, with which body. `writing.py` does it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from korch.api import incoming
from korch.api.answers import Refusal, bad_request
from korch.api.entries import Entry
from korch.api.incoming import Incoming, Validation
from korch.api.versions import Version
from korch.api.wire.shapes import Shape
from korch.errors import ForbiddenError
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.kinds import Kind
from korch.resources.meta import Object

Check = Callable[[Object, Object | None], None]  # of the new object and the old one

_MANAGER_CHARS = 128


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


def _relevant(target: Target, data: dict[str, Any]) -> dict[str, Any]:
    """The data without a status, which is only written on its own path."""
    return data if target.part == "status" or not target.kind.has_status else without(data, "status")


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    """The data without one key."""
    return {name: value for name, value in data.items() if name != key}
