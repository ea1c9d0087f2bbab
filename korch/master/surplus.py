"""Containers of one node that the store proves surplus: removed in passes, and what stays is told once."""

import logging

from korch.master.controlling import Scope
from korch.master.nodeevents import tell_of_node
from korch.nodes.keeper import Keeper
from korch.objects.view import View
from korch.resources.pod import Pod

log = logging.getLogger(__name__)


class Surplus:
    """What was told of one node's surplus, and of its orphans."""

    def __init__(self, node: str, view: View, scope: Scope) -> None:
        self._node, self._view, self._scope = node, view, scope
        self._held_back = 0
        self._stuck: frozenset[str] = frozenset()  # what could not be removed, and why
        self._orphans: frozenset[str] = frozenset()

    @property
    def is_left(self) -> bool:
        """Whether the last pass left some."""
        return bool(self._held_back or self._stuck)

    async def remove(self, keeper: Keeper) -> None:
        """One pass."""
        pods = {pod.metadata.uid: pod for pod in self._view.all(Pod)}
        unknown = keeper.known_uids() - pods.keys()
        objects = self._view.objects
        ended = frozenset([uid for uid in unknown if await objects.tombstone(uid) is not None])
        found = await keeper.remove_surplus(pods, ended, self._scope.owns)
        orphans = frozenset(orphan.name for orphan in found.orphans)
        for orphan in sorted(orphans - self._orphans):
            log.warning("%s: %s is unknown to the state; see `korch adopt`", self._node, orphan)
        if found.held_back and found.held_back != self._held_back:
            log.warning("%s: %d more surplus containers stay for now", self._node, found.held_back)
        self._orphans, self._held_back = orphans, found.held_back
        for text in [text for text in found.stuck if text not in self._stuck]:
            log.warning("%s: %s", self._node, text)
            await tell_of_node(self._view, self._node, reason="FailedKillPod", text=text, component="node-watch")
        self._stuck = frozenset(found.stuck)
