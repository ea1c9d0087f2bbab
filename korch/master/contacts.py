"""What the newest look at each host came to: who answers, who went away since, and why others cannot be worked with."""

from collections.abc import Iterable

import msgspec

from korch.errors import (
    ClaimedByOtherError,
    EngineDownError,
    EngineMissingError,
    HostRefusedError,
    KorchError,
    NoPermissionError,
)
from korch.inventory.model import Host
from korch.nodes.machine import Machine
from korch.nodes.report import NodeReport

_USABLE = frozenset({"Ready", "DiskPressure", "MemoryPressure"})
_REFUSALS: dict[str, type[HostRefusedError]] = {
    kind.reason: kind for kind in (EngineDownError, EngineMissingError, NoPermissionError, ClaimedByOtherError)
}


class Contact(msgspec.Struct, frozen=True):
    """A host that answers. `address` is its node address, "" when it is not clear."""

    host: Host
    machine: Machine
    report: NodeReport
    address: str
    images: frozenset[str]  # names of images that it holds, as far as is known


def is_usable(report: NodeReport) -> bool:
    """Whether containers can be worked with there."""
    return report.state in _USABLE


class Contacts:
    """Hosts by node name, each among those that answer or, with the reason, among those that do not."""

    def __init__(self) -> None:
        self.answering: dict[str, Contact] = {}
        self.errors: dict[str, KorchError] = {}
        self._lost: dict[str, Contact] = {}  # the last look at those that went away since

    def __bool__(self) -> bool:
        """Whether any host was looked at."""
        return bool(self.answering or self.errors)

    @property
    def usable(self) -> dict[str, Contact]:
        """Those that can be worked with."""
        return {name: found for name, found in self.answering.items() if is_usable(found.report)}

    @property
    def problems(self) -> dict[str, KorchError]:
        """Why each of the others cannot: it does not answer, or has no engine to work with."""
        refused = {
            name: _REFUSALS.get(found.report.state, HostRefusedError)(
                found.report.message, host=name, hint=found.report.hint
            )
            for name, found in self.answering.items()
            if not is_usable(found.report)
        }
        return {**refused, **self.errors}

    def answered(self, name: str, contact: Contact) -> None:
        """A look succeeded."""
        self.forget((name,))
        self.answering[name] = contact

    def failed(self, name: str, error: KorchError) -> None:
        """A look failed."""
        self.forget((name,))
        self.errors[name] = error

    def lose(self, name: str, error: KorchError) -> None:
        """One that was looked at went away."""
        if name in self.answering:
            self._lost[name] = self.answering.pop(name)
        self.errors[name] = error

    def find(self, name: str) -> None:
        """One that went away answers again, as it was then."""
        if name in self._lost:
            self.answered(name, self._lost[name])

    def forget(self, names: Iterable[str]) -> None:
        """Whatever is known of these is old."""
        for name in names:
            for known in (self.answering, self.errors, self._lost):
                known.pop(name, None)

    def clear(self) -> None:
        """Nothing is known of any."""
        for known in (self.answering, self.errors, self._lost):
            known.clear()
