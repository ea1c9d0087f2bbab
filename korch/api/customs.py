"""Custom kinds as the API serves them: learned from their definitions, their objects checked against the schemas."""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, cast

import msgspec.structs

from korch.api.cache import Cache
from korch.api.entries import Entry
from korch.api.versions import Data, Version, plain_version
from korch.api.wire.structural import Structure
from korch.errors import ConflictError, InvalidError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.values import Clock
from korch.resources import kinds
from korch.resources.codec import from_dict
from korch.resources.crd import CustomResourceDefinition
from korch.resources.customs import Custom, custom, established
from korch.resources.kinds import CRD, Kind

log = logging.getLogger(__name__)


class Customs:
    """All custom kinds, as of the last look."""

    def __init__(self, objects: Objects, cache: Cache, clock: Clock) -> None:
        self._objects, self._cache, self._clock = objects, cache, clock
        self._seen: tuple[Entry, ...] | None = None
        self._found: dict[tuple[str, str, str], Version] = {}  # by group, plural, version
        self._lock = asyncio.Lock()

    async def look(self, *, fresh: bool = False) -> None:
        """Know what is defined; `fresh`: also what was defined just now."""
        cache = (await self._cache.fresh(CRD))[0] if fresh else await self._cache.of(CRD)
        async with self._lock:
            entries = cache.snapshot()
            if entries is not self._seen:
                await self._learn(entries)
                self._seen = entries

    async def _learn(self, entries: tuple[Entry, ...]) -> None:
        found: dict[tuple[str, str, str], Version] = {}
        for entry in entries:
            try:
                crd = cast("CustomResourceDefinition", from_dict(CRD, entry.plain()))
                made = custom(crd)
                versions = self._versions(made) if made is not None else {}
            except (InvalidError, TypeError, ValueError) as error:  # one bad definition takes no other kind away
                log.warning("the definition %s cannot be served: %s", entry.name, error)
                continue
            if versions:
                found |= versions
                await self.establish(crd)
        kinds.keep_only({(group, plural) for group, plural, _ in found})
        self._found = found

    def _versions(self, made: Custom) -> dict[tuple[str, str, str], Version]:
        """The versions of a kind; those that are known are kept: much is worked out of a schema."""
        kind, found = made.kind, {}
        for name in made.versions:
            place = kind.group, kind.plural, name
            known = self._found.get(place)
            found[place] = known if known is not None and known.kind is kind else version_of(made, name)
        return found

    async def establish(self, crd: CustomResourceDefinition) -> CustomResourceDefinition:
        """Say on a definition that its kind is served."""
        wanted = established(crd, self._clock.now())
        if wanted is None:
            return crd
        try:
            return await self._objects.update_status(wanted)
        except (ConflictError, NotFoundError):  # it changed: the next look sees to it
            return crd

    def served(self, group: str, version: str, plural: str) -> Version | None:
        """What stands behind a path, or None."""
        return self._found.get((group, plural, version))

    def shown(self) -> tuple[Version, ...]:
        """All of them, under each version."""
        return tuple(self._found.values())


def version_of(found: Custom, name: str) -> Version:
    """One version of a custom kind: versions differ in nothing but their name."""
    structure = Structure(found.schemas[name])
    if name == found.kind.version:
        return dataclasses.replace(plain_version(found.kind), custom=found, structure=structure)
    shown = msgspec.structs.replace(found.kind, version=name)
    return Version(found.kind, shown, _named(shown), _named(found.kind), found, structure)


def _named(kind: Kind) -> Any:
    def named(data: Data) -> Data:
        return {**data, "apiVersion": kind.api_version}

    return named


def schema_of(version: Version) -> Mapping[str, Any] | None:
    """The schema of objects in this version; None for what is no custom kind."""
    return version.custom.schemas.get(version.shown.version) if version.custom is not None else None
