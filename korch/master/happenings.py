"""Events about nodes and about the lead, beside what those who act report themselves."""

import asyncio
import logging
import uuid
from collections import deque
from typing import Literal

import msgspec

from korch.errors import FencedError, KorchError
from korch.objects.values import Change
from korch.objects.view import View
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.meta import Object, ObjectMeta
from korch.resources.misc import Lease
from korch.resources.node import Node
from korch.resources.podstate import condition

log = logging.getLogger(__name__)

COMPONENT = "node-controller"
MOST = 1000  # that wait to be written: of more the oldest are dropped
TOLD_ELSEWHERE = frozenset({"Unreachable", "NotResponding"})  # by those who judge silence
LEASE = "korch-master"


class Happening(msgspec.Struct, frozen=True):
    """What became of a node."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def happenings(node: Node, before: Node) -> tuple[Happening, ...]:
    """What a change of a node is to people; nothing for most. Pure. Reasons are Kubernetes' where it has one."""
    name = node.metadata.name
    found: list[Happening] = []
    now, then = (condition(one.status.conditions, "Ready") for one in (node, before))
    if now is not None and then is not None and (now.status, now.reason) != (then.status, then.reason):
        if now.status != "True" and now.reason not in TOLD_ELSEWHERE:
            found.append(Happening("Warning", now.reason or "NodeNotReady", now.message or f"{name} is not ready"))
        elif now.status == "True" and then.status != "True" and then.reason not in TOLD_ELSEWHERE:
            found.append(Happening("Normal", "NodeReady", f"{name} is ready again; it was {then.reason}"))
    for pressure in ("DiskPressure", "MemoryPressure"):
        now, then = (condition(one.status.conditions, pressure) for one in (node, before))
        if now is not None and now.status == "True" and (then is None or then.status != "True"):
            found.append(Happening("Warning", f"NodeHas{pressure}", now.message or f"{name} has {pressure}"))
    if node.spec.unschedulable != before.spec.unschedulable:
        if node.spec.unschedulable:
            found.append(Happening("Normal", "NodeNotSchedulable", f"{name} takes no new pods"))
        else:
            found.append(Happening("Normal", "NodeSchedulable", f"{name} takes pods again"))
    return tuple(found)


class Happenings:
    """Writes the events of a term, one after another; an event that cannot be written is dropped."""

    def __init__(self, view: View, identity: str) -> None:
        self._view, self._identity = view, identity
        self._waiting: deque[tuple[Node, Happening]] = deque(maxlen=MOST)
        self._news = asyncio.Event()
        view.listen(self._note)

    def _note(self, change: Change[Object]) -> None:
        if isinstance(change.object, Node) and isinstance(change.previous, Node) and change.type == "MODIFIED":
            self._waiting.extend((change.object, found) for found in happenings(change.object, change.previous))
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        uid = str(uuid.uuid5(uuid.NAMESPACE_OID, LEASE))
        lease = Lease(metadata=ObjectMeta(name=LEASE, namespace=DEFAULT_NAMESPACE, uid=uid))
        await self._write(lease, Happening("Normal", "LeaderElection", f"{self._identity} became leader"), "korch")
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                node, found = self._waiting.popleft()
                await self._write(node, found, COMPONENT)

    async def _write(self, about: Object, found: Happening, component: str) -> None:
        try:
            await self._view.objects.record_event(
                about, type=found.type, reason=found.reason, message=found.message, component=component
            )
        except FencedError:
            raise
        except KorchError as error:
            log.info("an event of %s was not written: %s", about.metadata.name, error)
