"""What the silence of nodes means: who is lost, what is evicted, and when the master doubts itself instead.

One look each half second over all watches. A silent node is greeted on new connections; then other nodes are asked
whether they reach it; only when those do not either, it is Unreachable and its pods are replaced. When most nodes seem
lost at once it is this machine's own network, and when this process itself was asleep, nobody was silent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from korch.errors import FencedError, HostUnreachableError, KorchError
from korch.master.failover import give_up, has_local_volume, opinions_on
from korch.master.fencing import FencingHook
from korch.master.nodewatch import NodeWatch, Post
from korch.nodes.life import LOST_AFTER_S, QUIET_AFTER_S, Sight, is_mass_loss
from korch.resources.annotations import NODE_LOST
from korch.resources.node import Node, Taint
from korch.resources.pod import Pod
from korch.resources.podstate import condition, is_counted
from korch.resources.times import parse_time, rfc3339
from korch.scheduler.taints import eviction_due_s

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
GREET_EVERY_S = 1.0
ASLEEP_S = 2.0  # a look that comes so late tells of this process, not of the nodes
ANSWER_S = 1.5  # for another node to reach a silent one
UNREACHABLE = "node.kubernetes.io/unreachable"


class Lifecycle:
    """Judges the silence of all watched nodes. `evict_after` says when a pod must leave a node with such taints."""

    def __init__(
        self,
        post: Post,
        watches: Mapping[str, NodeWatch],
        *,
        hook: FencingHook | None = None,
    ) -> None:
        self._post, self._watches, self._hook = post, watches, hook
        self._greeting: dict[str, asyncio.Task[None]] = {}
        self._greeted_at: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._lost_since: dict[str, float] = {}  # on the event loop's clock
        self._fenced: set[str] = set()
        self._held: set[str] = set()  # fell silent in a mass loss: nothing moves there until they are back

    @property
    def lost(self) -> frozenset[str]:
        """Nodes that are Unreachable now."""
        return frozenset(self._lost_since)

    async def run(self) -> None:
        """Judge until cancelled."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                now = loop.time()
                if now - before > LOOK_EVERY_S + ASLEEP_S:
                    log.warning("this process was not running for %.0f s: nodes are judged anew", now - before)
                    for watch in self._watches.values():
                        watch.life.sign(now)
                before = now
                await self._look(group, now)

    async def _look(self, group: asyncio.TaskGroup, now: float) -> None:
        for name, watch in self._watches.items():
            silent = watch.life.silent_s(now)
            if silent < QUIET_AFTER_S:
                await self._heard(name)
                continue
            self._start_once(group, self._greeting, name, self._greet, due=self._is_due(name, now))
            if watch.life.verdict(now) in {"doubted", "lost"} and name not in self._lost_since:
                self._start_once(group, self._asking, name, self._ask)
        await self._judge(now)
        for name in self._lost_since:
            await self._evict(name)

    def _is_due(self, name: str, now: float) -> bool:
        due = now - self._greeted_at.get(name, 0.0) >= GREET_EVERY_S
        if due:
            self._greeted_at[name] = now
        return due

    def _start_once(
        self,
        group: asyncio.TaskGroup,
        tasks: dict[str, asyncio.Task[None]],
        name: str,
        call: Callable[[str], Awaitable[None]],
        *,
        due: bool = True,
    ) -> None:
        running = tasks.get(name)
        if due and (running is None or running.done()):

            async def go() -> None:
                await call(name)

            tasks[name] = group.create_task(go(), name=f"{call.__name__}-{name}")

    async def _greet(self, name: str) -> None:
        """A sign of life that needs no login."""
        watch, fleet = self._watches[name], self._post.fleet
        try:
            heard = await fleet.connector.greets(fleet.host(name), timeout_s=GREET_EVERY_S)
        except KorchError:
            heard = False
        if heard:
            watch.life.sign(asyncio.get_running_loop().time())
            if not watch.attached:
                watch.hurry()

    async def _ask(self, name: str) -> None:
        """A second opinion, of nodes that are heard themselves."""
        now = asyncio.get_running_loop().time()
        heard = sorted(
            other
            for other, watch in self._watches.items()
            if other != name and watch.attached and watch.life.silent_s(now) < QUIET_AFTER_S
        )
        try:
            found = await opinions_on(name, self._post.fleet, heard, answer_s=ANSWER_S)
        except KorchError as error:
            log.info("%s: nobody could be asked about it: %s", name, error)
            return
        self._watches[name].life.hear(found, asyncio.get_running_loop().time())

    async def _judge(self, now: float) -> None:
        sights = [self._sight(name, watch, now) for name, watch in self._watches.items()]
        if is_mass_loss(sights):
            await self._hold({found.name for found in sights if found.lost_for_s is not None} - self._lost_since.keys())
        for name, watch in self._watches.items():
            if name in self._lost_since or watch.life.silent_s(now) < LOST_AFTER_S:
                continue
            if self._was_given_up(name) or (watch.life.verdict(now) == "lost" and name not in self._held):
                await self._declare_lost(name, now)

    def _was_given_up(self, name: str) -> bool:
        """Somebody said so: `korch node lost`."""
        node = self._post.view.find(Node, name, "")
        return node is not None and NODE_LOST in node.metadata.annotations

    def _sight(self, name: str, watch: NodeWatch, now: float) -> Sight:
        """As the mass-loss rule sees it: lost from the moment in which its silence became long."""
        silent = watch.life.silent_s(now)
        node = self._post.view.find(Node, name, "")
        ready = condition(node.status.conditions, "Ready") if node else None
        if silent < LOST_AFTER_S:
            return Sight(name, None, ready is not None and ready.status == "True")
        if name in self._lost_since:
            return Sight(name, now - self._lost_since[name], True)
        if ready is not None and ready.status == "True":
            return Sight(name, silent - LOST_AFTER_S, True)
        since = parse_time(ready.last_transition_time) if ready and ready.last_transition_time else 0.0
        return Sight(name, self._post.clock.now() - since, ready is not None)

    async def _hold(self, names: set[str]) -> None:
        for name in sorted(names - self._held):
            self._held.add(name)
            text = (
                f"{name} fell silent together with most nodes: this looks like the master's own network, so nothing is "
                f"moved. If it is really gone: korch node lost {name}"
            )
            log.warning("%s", text)
            await self._post.fleet.record_failure(name, HostUnreachableError(text, host=name))
            await self._event(name, "MassLoss", text)

    async def _declare_lost(self, name: str, now: float) -> None:
        witnesses = ", ".join(sorted(self._watches[name].life.opinions))
        text = f"{name} gives no sign of life, and {witnesses} cannot reach it either"
        log.warning("%s: its pods are replaced elsewhere", text)
        self._lost_since[name] = now
        error = HostUnreachableError(text, host=name, hint="Look at the machine; korch goes on when it is back.")
        await self._post.fleet.record_failure(name, error)
        await self._taint(name, add=True)
        await self._event(name, "NodeNotReachable", text)
        if self._hook is not None:
            self._hook.start(name, self._fenced.add)

    async def _heard(self, name: str) -> None:
        self._held.discard(name)
        if self._watches[name].attached and (name in self._lost_since or self._is_tainted(name)):
            self._lost_since.pop(name, None)
            self._fenced.discard(name)
            log.warning("%s: is back", name)
            await self._taint(name, add=False)
            await self._event(name, "NodeReachable", f"{name} is back", warning=False)

    def _is_tainted(self, name: str) -> bool:
        node = self._post.view.find(Node, name, "")
        return node is not None and any(taint.key == UNREACHABLE for taint in node.spec.taints)

    async def _taint(self, name: str, *, add: bool) -> None:
        stamp = rfc3339(self._post.clock.now())

        def change(node: Node) -> Node | None:
            kept = tuple(taint for taint in node.spec.taints if taint.key != UNREACHABLE)
            if add and len(kept) < len(node.spec.taints):
                return None  # since an earlier master said so
            more = (Taint(key=UNREACHABLE, effect="NoExecute", time_added=stamp),) if add else ()
            meta = node.metadata
            if not add and NODE_LOST in meta.annotations:
                notes = {key: text for key, text in meta.annotations.items() if key != NODE_LOST}
                meta = replace(meta, annotations=notes)
            new = replace(node, metadata=meta, spec=replace(node.spec, taints=(*kept, *more)))
            return None if new == node else new

        try:
            await self._post.view.objects.modify(Node, name, "", change)
        except FencedError:
            raise
        except KorchError as error:
            log.warning("%s: its taint could not be changed: %s", name, error)

    async def _evict(self, name: str) -> None:
        """Replace what the node had, as soon as each pod's tolerations end; pinned data waits for proof."""
        node = self._post.view.find(Node, name, "")
        taint = next((found for found in node.spec.taints if found.key == UNREACHABLE), None) if node else None
        if node is None or taint is None:
            return
        now = self._post.clock.now()
        gone = name in self._fenced or NODE_LOST in node.metadata.annotations
        for pod in tuple(self._post.view.all(Pod)):
            if pod.spec.node_name != name or not is_counted(pod):
                continue
            if has_local_volume(pod) and not gone:
                continue
            since = parse_time(taint.time_added) if taint.time_added else now
            due_s = 0.0 if gone else eviction_due_s(pod, (taint,), since, now)
            if due_s is not None and due_s <= 0:
                try:
                    await give_up(pod, f"{name} cannot be reached", self._post.view.objects, now)
                except FencedError:
                    raise
                except KorchError as error:
                    log.warning("%s: %s could not be given up: %s", name, pod.metadata.name, error)

    async def _event(self, name: str, reason: str, text: str, *, warning: bool = True) -> None:
        node = self._post.view.find(Node, name, "")
        if node is not None:
            await self._post.view.objects.record_event(
                node, type="Warning" if warning else "Normal", reason=reason, message=text, component="node-lifecycle"
            )
