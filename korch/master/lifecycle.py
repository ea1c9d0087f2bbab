"""What the silence of nodes means: who is lost, what is evicted, and when the master doubts itself instead.

A few looks a second over all watches. A silent node is greeted on new connections; then other nodes are asked
whether they reach it; only when those do not either, it is Unreachable and its pods are replaced. When most nodes seem
lost at once it is this machine's own network, and when this process itself was asleep, nobody was silent.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from korch.errors import FencedError, HostUnreachableError, KorchError, TransientError
from korch.master.asides import Asides
from korch.master.enginedown import replace_dead
from korch.master.evicting import Evictions
from korch.master.fencing import FencingHook
from korch.master.marks import unreachable_taint, with_mass_loss, with_not_ready, with_unreachable, without_not_ready
from korch.master.nodeevents import tell_of_node
from korch.master.nodewatch import NodeWatch, Post
from korch.master.tainting import TaintEvictions
from korch.master.witnesses import Target, Witnesses, opinions_on, targets_of, what_reaches
from korch.nodes.life import (
    ASK_AFTER_S,
    DECIDE_AFTER_S,
    LOST_AFTER_S,
    QUIET_AFTER_S,
    UNTOLD_AFTER_S,
    Sight,
    ask_every_s,
    greet_every_s,
    is_mass_loss,
)
from korch.nodes.register import well_again
from korch.resources.annotations import MASS_LOSS, NODE_LOST
from korch.resources.node import Node, node_address
from korch.resources.pod import Pod
from korch.resources.podstate import condition
from korch.resources.times import parse_time

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LOOK_SOON_S = 0.1  # the same while a node may be lost
GREETINGS = 4  # at once to one node: the next need not wait for the end of the last
GREETING_S = 1.0  # for a node to answer a greeting; a later answer counts for nothing
ASLEEP_S = 2.0  # a look that comes so late tells of this process, not of the nodes
TRY_PAUSE_S = 1.0  # between trials of who reaches a healthy node
WITNESS_S = 1.5  # for another node to reach a silent one
DOUBT_AFTER_S = 10.0  # others have answered by then
ENGINE_DOWN_S = 60.0  # before anybody looks whether the containers live without their engine
ENGINE_LOOK_EVERY_S = 15.0
BACK_HINT = "Look at the machine; korch goes on when it is back."


class Lifecycle:
    """Judges the silence of all watched nodes (a mapping that may change meanwhile)."""

    def __init__(
        self,
        post: Post,
        watches: Mapping[str, NodeWatch],
        *,
        hook: FencingHook | None = None,
    ) -> None:
        self._post, self._watches, self._hook = post, watches, hook
        self._evictions = Evictions(post.view, post.clock, hook=hook)
        self._tainted_out = TaintEvictions(post.view, post.clock, is_down=self._is_down)
        self._asides = Asides(watches)
        self._witnesses = Witnesses()
        self._unheard: set[str] = set()  # did not answer the last greeting
        self._lost_since: dict[str, float] = {}  # on the event loop's clock
        self._refused = ""  # why the last look came to nothing
        self._doubts: dict[str, str] = {}  # silent and not lost: why nothing is moved, as it was told

    @property
    def lost(self) -> frozenset[str]:
        """Nodes that are Unreachable now."""
        return frozenset(self._lost_since)

    async def run(self) -> None:
        """Judge until cancelled."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        try:
            async with self._asides:
                while True:
                    await asyncio.sleep(self._pause_s(before))
                    now = loop.time()
                    if now - before > LOOK_EVERY_S + ASLEEP_S:
                        log.warning("this process was not running for %.0f s: nodes are judged anew", now - before)
                        for watch in self._watches.values():
                            watch.life.sign(now)
                    before = now
                    await self._look_if_possible(now)
        finally:
            if self._hook is not None:
                await self._hook.close()

    def _pause_s(self, now: float) -> float:
        """Seconds until the next look."""
        urgent = any(
            name not in self._lost_since and ASK_AFTER_S <= watch.life.silent_s(now) < DOUBT_AFTER_S
            for name, watch in self._watches.items()
        )
        return LOOK_SOON_S if urgent else LOOK_EVERY_S

    async def _look_if_possible(self, now: float) -> None:
        """What cannot be written now is written after the next look."""
        try:
            await self._look(now)
        except FencedError:
            raise
        except KorchError as error:
            if str(error) != self._refused:  # once: there are four looks a second, and the disk may be full
                log.warning("the nodes could not be judged: %s", error)
            self._refused = str(error)
        else:
            self._refused = ""

    async def _look(self, now: float) -> None:
        self._forget_others()
        for name, watch in tuple(self._watches.items()):
            silent = watch.life.silent_s(now)
            if silent < QUIET_AFTER_S:
                await self._heard(name, watch)
                await self._note_engine(name, watch)
                self._look_at_engine(name, watch, now)
                if watch.attached and self._witnesses.is_due(name, now):
                    self._asides.begin(self._try_witnesses, name, now, TRY_PAUSE_S)
                continue
            decides = silent >= DECIDE_AFTER_S and watch.life.unanswered_since is None
            every_s = 0.0 if decides else greet_every_s(silent)
            if self._asides.begin(self._greet, name, now, every_s, at_once=GREETINGS):
                watch.life.greet(now)
            if watch.life.verdict(now) in {"doubted", "lost"} and name not in self._lost_since:
                self._asides.begin(self._ask, name, now, ask_every_s(silent))
        await self._judge(now)
        await self._evictions.look(self.lost)
        await self._tainted_out.look(self.lost)

    def _forget_others(self) -> None:
        """Nodes that are watched no more: the inventory has lost them."""
        known = {*self._lost_since, *self._doubts, *self._unheard, *self._asides.names}
        for name in known - self._watches.keys():
            self._lost_since.pop(name, None)
            self._doubts.pop(name, None)
            self._unheard.discard(name)
            self._evictions.forget(name)
            self._witnesses.forget(name)
            self._asides.forget(name)

    # Beside the looks

    async def _greet(self, name: str) -> None:
        """A sign of life that needs no login."""
        watch, fleet = self._watches[name], self._post.fleet
        if not await fleet.connector.greets(fleet.host(name), timeout_s=GREETING_S):
            self._unheard.add(name)
            return
        watch.life.sign(asyncio.get_running_loop().time())
        if name in self._unheard:
            self._unheard.discard(name)
            if isinstance(watch.problem, TransientError):  # one that refuses us is not asked more often for answering
                watch.hurry()

    def _heard_now(self, now: float) -> list[str]:
        """Nodes that are heard and can be worked with, in order."""
        watches = self._watches.items()
        return sorted(name for name, watch in watches if watch.attached and watch.life.silent_s(now) < QUIET_AFTER_S)

    def _others(self, name: str, heard: Sequence[str]) -> list[str]:
        """Those of them that are not it, nor have its address: they would ask themselves."""
        own = node_address(self._node(name))
        return [other for other in heard if other != name and (not own or node_address(self._node(other)) != own)]

    async def _targets(self, name: str) -> tuple[Target, ...]:
        return await targets_of(name, self._post.fleet, self._node(name), self._post.view.all(Pod))

    async def _ask(self, name: str) -> None:
        """A second opinion, of nodes that are heard themselves."""
        loop, known = asyncio.get_running_loop(), self._witnesses
        heard = known.in_order(name, self._others(name, self._heard_now(loop.time())))
        found = await opinions_on(
            self._post.fleet,
            heard,
            await self._targets(name),
            counts=lambda witness, target: known.counts(name, witness, target),
            answer_s=WITNESS_S,
        )
        if (watch := self._watches.get(name)) is not None:
            watch.life.hear(found, loop.time())

    async def _try_witnesses(self, name: str) -> None:
        """Who reaches it while it is well; forgotten when it does not show afterwards that it was."""
        loop, fleet = asyncio.get_running_loop(), self._post.fleet
        chosen = self._witnesses.to_try(name, self._others(name, self._heard_now(loop.time())), loop.time())
        targets = await self._targets(name)
        said = await asyncio.gather(*(what_reaches(fleet.transport(other), targets, WITNESS_S) for other in chosen))
        asked_at = loop.time()
        if not all(True in answers.values() for answers in said):
            await asyncio.sleep(QUIET_AFTER_S)
        watch = self._watches.get(name)
        for other, answers in zip(chosen, said, strict=True):
            reached = {target for target, answer in answers.items() if answer}
            if reached or (watch is not None and watch.life.last_sign > asked_at):
                self._witnesses.learn(name, other, reached, loop.time())

    def _is_down(self, name: str) -> bool:
        watch = self._watches.get(name)
        return watch is not None and watch.engine_is_down

    async def _note_engine(self, name: str, watch: NodeWatch) -> None:
        """A node that is heard while its engine is not is tainted `not-ready`; one that refuses our login never is."""
        node = self._node(name)
        if node is None:
            return
        if watch.engine_is_down:
            now = self._post.clock.now()
            if with_not_ready(node, now) is not None:
                await self._mark(name, lambda found: with_not_ready(found, now))
        elif not isinstance(watch.problem, TransientError) and without_not_ready(node) is not None:
            await self._mark(name, without_not_ready)

    def _look_at_engine(self, name: str, watch: NodeWatch, now: float) -> None:
        if watch.engine_down_since is not None and now - watch.engine_down_since >= ENGINE_DOWN_S:
            self._asides.begin(self._replace_dead, name, now, ENGINE_LOOK_EVERY_S)

    async def _replace_dead(self, name: str) -> None:
        watch, post = self._watches[name], self._post
        await replace_dead(name, post.fleet.machine(name), post.view, post.clock, is_down=lambda: watch.engine_is_down)

    # Judging

    async def _judge(self, now: float) -> None:
        silent = {name: watch.life.silent_s(now) for name, watch in self._watches.items()}
        mass = is_mass_loss([self._sight(name, since, now) for name, since in silent.items()])
        # Signs come once a second: those who fall silent together are lost one after another.
        quiet = [self._sight(name, since, now, QUIET_AFTER_S) for name, since in silent.items()]
        may_be_mass = mass or is_mass_loss(quiet)
        heard = self._heard_now(now)
        for name, watch in tuple(self._watches.items()):
            if name in self._lost_since:
                continue
            if self._has(name, NODE_LOST) and not watch.attached:
                await self._declare_lost(name, now, f"{name} was given up with `korch node lost`")
                continue
            if silent[name] < LOST_AFTER_S:
                continue
            if (mass and unreachable_taint(self._node(name)) is None) or self._has(name, MASS_LOSS):
                await self._hold(name)
            elif watch.life.verdict(now, others_heard=bool(heard)) != "lost":
                if silent[name] >= DOUBT_AFTER_S:
                    await self._doubt(name, watch, others_heard=bool(heard))
            elif not may_be_mass:
                witnesses = ", ".join(sorted(watch.life.opinions))
                why = f"and {witnesses} cannot reach it either" if witnesses else "and no other node can tell"
                await self._declare_lost(name, now, f"{name} gives no sign of life, {why}")

    def _node(self, name: str) -> Node | None:
        return self._post.view.find(Node, name, "")

    def _has(self, name: str, annotation: str) -> bool:
        node = self._node(name)
        return node is not None and annotation in node.metadata.annotations

    def _sight(self, name: str, silent: float, now: float, after_s: float = LOST_AFTER_S) -> Sight:
        """As the mass-loss rule sees it: lost from the moment in which its silence became long."""
        node = self._node(name)
        ready = condition(node.status.conditions, "Ready") if node else None
        is_ready = ready is not None and ready.status == "True"
        if silent < after_s:
            return Sight(name, None, is_ready)
        if name in self._lost_since:
            return Sight(name, now - self._lost_since[name], True)
        if is_ready:
            return Sight(name, silent - after_s, True)
        since = parse_time(ready.last_transition_time) if ready and ready.last_transition_time else 0.0
        return Sight(name, self._post.clock.now() - since, ready is not None)

    async def _hold(self, name: str) -> None:
        """Nothing moves there until it is back, also under another master: the state remembers it."""
        if name in self._doubts and self._has(name, MASS_LOSS):
            return
        text = (
            f"{name} fell silent together with most nodes: this looks like the master's own network, so nothing is "
            f"moved. If it is really gone: korch node lost {name}"
        )
        await self._mark(name, lambda node: with_mass_loss(node, self._post.clock.now()))
        if await self._tell(name, text):
            await self._event(name, "MassLoss", text)

    async def _doubt(self, name: str, watch: NodeWatch, *, others_heard: bool) -> None:
        """It is silent, and nobody confirms that it is gone."""
        reached = sorted(witness for witness, (_, answer) in watch.life.opinions.items() if answer)
        if reached:
            why = f"{reached[0]} reaches it, so its pods stay: look at the network between the master and {name}"
        elif not watch.life.opinions and others_heard:
            why = f"no other node can tell whether it lives: its pods are replaced after {UNTOLD_AFTER_S:.0f} s of that"
        elif not watch.life.opinions:
            why = f"no other node can tell whether it lives, so its pods stay. If it is gone: korch node lost {name}"
        else:
            return  # they do not reach it either, but said so some time ago: they are being asked again
        await self._tell(name, f"{name} gives no sign of life; {why}")

    async def _tell(self, name: str, text: str, hint: str = "") -> bool:
        """Put on record why a silent node cannot be worked with; whether that was news."""
        if self._doubts.get(name) == text:
            return False
        await self._post.fleet.record_failure(name, HostUnreachableError(text, host=name, hint=hint))
        log.warning("%s", text)
        self._doubts[name] = text
        return True

    async def _declare_lost(self, name: str, now: float, text: str) -> None:
        """Its taint first: that is what evicts, under another master too."""
        await self._mark(name, lambda node: with_unreachable(node, self._post.clock.now()))
        await self._tell(name, text, BACK_HINT)
        log.warning("%s: its pods are replaced elsewhere", name)
        self._lost_since[name] = now
        self._watches[name].drop()
        await self._event(name, "NodeNotReachable", f"{text}: its pods are replaced elsewhere. {BACK_HINT}")

    async def _heard(self, name: str, watch: NodeWatch) -> None:
        if not watch.attached:
            return
        self._doubts.pop(name, None)
        was_lost = self._lost_since.pop(name, None) is not None
        node = self._node(name)
        if node is None or well_again(node) is None:
            return
        await self._mark(name, well_again)
        self._evictions.forget(name)
        if not was_lost and (cleared := without_not_ready(node)) is not None and well_again(cleared) is None:
            return  # only its engine was away
        log.warning("%s: is back", name)
        if was_lost or unreachable_taint(node) is not None:
            await self._event(name, "NodeReachable", f"{name} is back", warning=False)

    async def _mark(self, name: str, change: Callable[[Node], Node | None]) -> None:
        if self._node(name) is not None:
            await self._post.view.modify(Node, name, "", change)

    async def _event(self, name: str, reason: str, text: str, *, warning: bool = True) -> None:
        view = self._post.view
        await tell_of_node(view, name, reason=reason, text=text, component="node-lifecycle", warning=warning)
