"""Other versions of kinds that are stored: the same objects under another group and version, in another shape.

What is stored is one shape; requests for another one are translated on their way in and out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec.structs

from korch.api.wire.structural import Structure
from korch.resources.autoscaling import from_v1, to_v1
from korch.resources.customs import Custom
from korch.resources.kinds import AUTOSCALER, EVENT, Kind

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """How a kind is `shown` under one address; `kind` is what is stored. `outward` None: just as it is stored."""

    kind: Kind
    shown: Kind
    outward: Callable[[Data], Data] | None = None
    inward: Callable[[Data], Data] | None = None
    custom: Custom | None = None
    structure: Structure | None = None

    @property
    def deprecation(self) -> str:
        """What who uses it is warned of, or ""."""
        return self.custom.warnings.get(self.shown.version, "") if self.custom is not None else ""

    def out(self, data: Data) -> Data:
        """A stored object as it is shown."""
        return data if self.outward is None else self.outward(data)

    def stored(self, data: Data) -> Data:
        """A shown object as it is stored."""
        return data if self.inward is None else self.inward(data)


def plain_version(kind: Kind) -> Version:
    """The version that is stored."""
    return Version(kind, kind)


# --- events.k8s.io ---

_EVENT_FIELDS = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_CORE_FIELDS = {old: new for new, old in _EVENT_FIELDS.items()}


def event_out(event: Data) -> Data:
    """A core Event as events.k8s.io/v1 has it, with the time and reporter that older events tell in other fields."""
    made = {_CORE_FIELDS.get(key, key): value for key, value in event.items()}
    source, first = event.get("source") or {}, event.get("firstTimestamp")
    exact = f"{first.removesuffix('Z')}.000000Z" if isinstance(first, str) and "." not in first else first
    return {
        **made,
        "apiVersion": "events.k8s.io/v1",
        "eventTime": event.get("eventTime") or exact,
        "reportingController": event.get("reportingComponent") or source.get("component", ""),
        "reportingInstance": event.get("reportingInstance") or source.get("host", ""),
    }


def event_in(event: Data) -> Data:
    """An Event of events.k8s.io/v1 as a core Event."""
    return {**{_EVENT_FIELDS.get(key, key): value for key, value in event.items()}, "apiVersion": "v1"}


VERSIONS: tuple[Version, ...] = (
    Version(AUTOSCALER, msgspec.structs.replace(AUTOSCALER, version="v1"), to_v1, from_v1),
    Version(EVENT, msgspec.structs.replace(EVENT, group="events.k8s.io"), event_out, event_in),
)
