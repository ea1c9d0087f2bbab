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
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_KEPT = ("metadata", "reason", "type")


def event_out(event: Data) -> Data:
    """A core Event as events.k8s.io/v1 has it."""
    source = event.get("source", {})
    first = event.get("firstTimestamp")
    made = {"kind": "Event", "apiVersion": "events.k8s.io/v1", **{key: event[key] for key in _KEPT if key in event}}
    made["eventTime"] = f"{first.removesuffix('Z')}.000000Z" if isinstance(first, str) and "." not in first else first
    made |= {new: event[old] for new, old in _EVENT_FIELDS.items() if old in event}
    if source:
        made["deprecatedSource"] = source
    return {**made, "reportingController": source.get("component", ""), "reportingInstance": source.get("host", "")}


def event_in(event: Data) -> Data:
    """An Event of events.k8s.io/v1 as a core Event."""
    made = {"kind": "Event", "apiVersion": "v1", **{key: event[key] for key in _KEPT if key in event}}
    made |= {old: event[new] for new, old in _EVENT_FIELDS.items() if event.get(new) is not None}
    series = event.get("series")
    if isinstance(series, dict):
        made |= {"count": series.get("count", 1), "lastTimestamp": series.get("lastObservedTime")}
    if isinstance(when := event.get("eventTime"), str):
        whole = when.partition(".")[0].removesuffix("Z") + "Z"
        made = {"firstTimestamp": whole, "lastTimestamp": whole, "count": 1, **made}
    source = {"component": event.get("reportingController"), "host": event.get("reportingInstance")}
    return {**made, "source": {key: text for key, text in source.items() if text}}


VERSIONS: tuple[Version, ...] = (
    Version(AUTOSCALER, msgspec.structs.replace(AUTOSCALER, version="v1"), to_v1, from_v1),
    Version(EVENT, msgspec.structs.replace(EVENT, group="events.k8s.io"), event_out, event_in),
)
