"""The small kinds: Namespace, Secret, Event, Lease."""

from korch.resources.meta import Object, ObjectReference, Struct


class NamespaceStatus(Struct, frozen=True, kw_only=True):
    """`phase`: Active or Terminating."""

    phase: str = ""


class Namespace(Object, frozen=True, kw_only=True):
    """core/v1 Namespace."""

    status: NamespaceStatus = NamespaceStatus()


class Secret(Object, frozen=True, kw_only=True):
    """core/v1 Secret. `data` values are base64 text; never shown, logged or put into argv."""

    type: str = ""
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
    immutable: bool | None = None

    def __repr__(self) -> str:
        """Without the values."""
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, keys={sorted(self.data)})"


class EventSource(Struct, frozen=True, kw_only=True):
    """Which part of korch reported it."""

    component: str = ""
    host: str = ""


class EventSeries(Struct, frozen=True, kw_only=True):
    """How often it has happened, as newer reporters tell it."""

    count: int = 0
    last_observed_time: str | None = None


class Event(Object, frozen=True, kw_only=True):
    """core/v1 Event: something that happened, counted when it happens again. `type`: Normal or Warning.

    Newer reporters fill `event_time`, `series`, `action` and `reporting_*`; older ones the times, `count` and `source`.
    """

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    source: EventSource = EventSource()
    event_time: str | None = None
    series: EventSeries | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = ""
    reporting_instance: str = ""

    @property
    def first_seen(self) -> str:
        """When it happened first."""
        return self.first_timestamp or self.event_time or self.metadata.creation_timestamp or ""

    @property
    def last_seen(self) -> str:
        """When it happened last."""
        last = self.series.last_observed_time if self.series is not None else None
        return last or self.last_timestamp or self.first_seen

    @property
    def times(self) -> int:
        """How often it happened."""
        return self.series.count if self.series is not None else max(self.count, 1)


class LeaseSpec(Struct, frozen=True, kw_only=True):
    """Who holds it. `lease_transitions` is the epoch: it only grows."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(Object, frozen=True, kw_only=True):
    """coordination.k8s.io/v1 Lease."""

    spec: LeaseSpec = LeaseSpec()
