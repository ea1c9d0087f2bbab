"""Custom kinds as the API serves them: learned from their definitions, their objects checked against the schemas."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from korch.api.cache import Cache
from korch.api.entries import Entry
from korch.api.versions import Data, Version, plain_version
from korch.errors import ConflictError, NotFoundError
from korch.objects.objects import Objects
from korch.objects.values import Clock
from korch.resources import kinds
from korch.resources.codec import from_dict
from korch.resources.crd import CustomResourceDefinition
from korch.resources.customs import Custom, custom, established
from korch.resources.kinds import CRD, Kind


class Customs:
    """All custom kinds, as of the last look."""

    def __init__(self, objects: Objects, cache: Cache, clock: Clock) -> None:
        self._objects, self._cache, self._clock = objects, cache, clock
        self._seen: tuple[Entry, ...] | None = None
        self._found: dict[tuple[str, str], Custom] = {}
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
        found: dict[tuple[str, str], Custom] = {}
        for entry in entries:
            crd = from_dict(CRD, entry.plain())
            assert isinstance(crd, CustomResourceDefinition)
            made = custom(crd)
            if made is not None:
                found[made.kind.group, made.kind.plural] = made
                await self.establish(crd)
        kinds.keep_only(found)
        self._found = found

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
        found = self._found.get((group, plural))
        if found is None or version not in found.versions:
            return None
        return version_of(found, version)

    def of(self, kind: Kind) -> Custom | None:
        """What is known of a custom kind beside the `Kind`."""
        return self._found.get((kind.group, kind.plural))

    def shown(self) -> tuple[Version, ...]:
        """All of them, under each version."""
        return tuple(version_of(found, name) for found in self._found.values() for name in found.versions)


def version_of(found: Custom, name: str) -> Version:
    """One version of a custom kind: versions differ in nothing but their name."""
    if name == found.kind.version:
        return dataclasses.replace(plain_version(found.kind), custom=found)
    shown = dataclasses.replace(found.kind, version=name)
    return Version(found.kind, shown, _named(shown), _named(found.kind), found)


def _named(kind: Kind) -> Any:
    def named(data: Data) -> Data:
        return {**data, "apiVersion": kind.api_version}

    return named


def schema_of(version: Version) -> Mapping[str, Any] | None:
    """The schema of objects in this version; None for what is no custom kind."""
    return version.custom.schemas.get(version.shown.version) if version.custom is not None else None
