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


class Event(Object, frozen=True, kw_only=True):
    """core/v1 Event: something that happened, counted when it happens again. `type`: Normal or Warning."""

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    source: EventSource = EventSource()


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
