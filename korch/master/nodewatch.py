"""One node as a master keeps it: connected for good, its session heard, its keeper at work; again after every loss.

What the node's silence means is not decided here, but by `lifecycle.py`.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from korch.engines.events import EngineEvent
from korch.errors import (
    CommandFailedError,
    EngineDownError,
    FencedError,
    HostRefusedError,
    HostUnreachableError,
    InvalidError,
    KorchError,
    NotRespondingError,
    TransientError,
)
from korch.master.contacts import Contact
from korch.master.controlling import Scope
from korch.master.fleet import Fleet
from korch.master.marks import unreachable_taint
from korch.master.nodeevents import tell_of_node
from korch.master.samples import Samples
from korch.master.surplus import Surplus
from korch.nodes.keeper import Keeper
from korch.nodes.life import PULSE_S, Life
from korch.nodes.news import EngineWatch, Sample
from korch.objects.values import Clock
from korch.objects.view import View
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.podstate import condition
from korch.store.lease import Lead

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
ENGINE_PAUSE_S = 5.0  # the same while only the engine is away: it is being restarted
STEADY_S = 10.0  # a connection that lasted so long was a good one
REST_S = 20.0  # between looks while the session tells of nothing
NEXT_SURPLUS_S = 60.0  # until surplus that stayed is tried again; what one pass leaves, somebody may want to keep
FULL_LOOK_S = 300.0  # images, volumes, disk, clock: what the session does not tell
NOTICE_EVERY_S = 1.0
NOT_RESPONDING_S = 15.0  # of greetings without work, and that is told: a reboot's sshd needs some of it


@dataclass(slots=True)
class Post:
    """What a term shares with its watches."""

    fleet: Fleet
    view: View
    clock: Clock
    lead: Lead
    scope: Scope
    epoch: Callable[[], int]


class NodeWatch:
    """Watches one node until cancelled. `life` holds its signs; `problem`: why it cannot be worked with, or None."""

    def __init__(self, name: str, post: Post) -> None:
        self.name, self._post = name, post
        self.life = Life(asyncio.get_running_loop().time())
        self.problem: KorchError | None = HostUnreachableError(f"{name} was not reached yet", host=name)
        self.keeper: Keeper | None = None
        self.attached = False
        self.engine_down_since: float | None = None  # on the event loop's clock
        self._again = asyncio.Event()
        self._attempt: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._surplus = Surplus(name, post.view, post.scope)
        self._removing: asyncio.Task[None] | None = None  # of surplus, beside the session
        self._left_behind = False  # containers of a pod that is gone from the store
        self._samples = Samples(name, post.fleet, post.view, post.clock)
        self._greets_since: float | None = None  # on the event loop's clock: it lives, and cannot be worked with
        self._told = False  # that it does not respond

    @property
    def engine_is_down(self) -> bool:
        """Whether that was so at the last look."""
        return self.engine_down_since is not None

    def drop(self) -> None:
        """It is lost: whatever was open to it is opened anew, and looked at, before it counts as back."""
        self.attached = False
        self.problem = HostUnreachableError(f"{self.name} was lost", host=self.name)
        if self._attempt is not None:
            self._attempt.cancel()

    def hurry(self) -> None:
        """Try to connect now: it may have come back."""
        self._again.set()

    def wake(self, pod: Pod) -> None:
        """Something changed about a pod of this node. One that is gone by force leaves containers behind."""
        if self.keeper is None:
            return
        self.keeper.wake(pod)
        stored = self._post.view.find(Pod, pod.metadata.name, pod.metadata.namespace)
        if stored is None or stored.metadata.uid != pod.metadata.uid:
            self._left_behind |= pod.metadata.uid in self.keeper.known_uids()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Keep it. Ends only when cancelled, or with `FencedError`."""
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        noticing = group.create_task(self._notice_for_good(), name=f"notice-{self.name}")
        try:
            while True:
                began = loop.time()
                await self._keep_until_dropped(group)
                self.attached = False
                if loop.time() - began >= STEADY_S:
                    pause_s = FIRST_PAUSE_S
                self._again.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s * random.uniform(0.7, 1.3)):  # noqa: S311 (jitter, not a secret)
                        await self._again.wait()
                pause_s = min(pause_s * 2, ENGINE_PAUSE_S if self.engine_is_down else LONGEST_PAUSE_S)
        finally:
            self.attached = False
            noticing.cancel()
            await self._dismiss()

    async def _keep_until_dropped(self, group: asyncio.TaskGroup) -> None:
        attempt = self._attempt = asyncio.create_task(self._keep_once(group), name=f"session-{self.name}")
        try:
            await asyncio.wait({attempt})
        finally:
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        if not attempt.cancelled():
            attempt.result()

    async def _keep_once(self, group: asyncio.TaskGroup) -> None:
        """From one connection to its end; a session that ends in peace is followed by the next."""
        try:
            await self._take_up(await self._post.fleet.attach(self.name), group)
            await self._attend()
        except FencedError:
            raise
        except KorchError as error:
            await self._trouble(error)
        except Exception:
            log.exception("%s: watching it failed; this is a bug in korch", self.name)
        finally:
            removing, self._removing = self._removing, None
            if removing is not None:
                removing.cancel()
                await asyncio.gather(removing, return_exceptions=True)

    async def _take_up(self, contact: Contact, group: asyncio.TaskGroup) -> None:
        """What runs there is taken over, what is surplus goes, and only then is anything started."""
        epoch = await self._post.lead.raise_epoch(contact.report.epoch)
        self.life.sign(asyncio.get_running_loop().time())
        if contact.report.epoch < epoch:
            await self._shut_out_others(contact)
        if self.keeper is not None and self.keeper.address != contact.address:
            await self._dismiss()
        if self.keeper is None:
            self.keeper = self._new_keeper(contact)
            self.keeper.adopt(contact.report.containers, contact.images)
            await self.keeper.take_stock()
        else:
            await self.keeper.look_anew(contact.images)
        await self._surplus.remove(self.keeper)
        self.keeper.back()
        if self._keeping is None:
            self._keeping = group.create_task(self.keeper.run(rest_s=REST_S), name=f"keeper-{self.name}")
        self.keeper.glance()
        if self.problem is not None:
            log.info("%s: ready", self.name)
        self.problem, self.attached, self.engine_down_since = None, True, None
        if self._told:
            await self._event("NodeResponding", f"{self.name} can be worked with again", warning=False)
        self._told = False

    async def _shut_out_others(self, contact: Contact) -> None:
        """Whoever led before and was only asleep is refused there from now on; the next look tells what it did before.

        On a full disk the epoch may be written and the claim's new text not: that will do.
        """
        try:
            await contact.machine.set_epoch(self._post.epoch())
        except (CommandFailedError, HostRefusedError) as error:
            log.info("%s: %s", self.name, error)

    def _new_keeper(self, contact: Contact) -> Keeper:
        keeper = Keeper(
            self.name,
            contact.machine,
            self._post.view,
            self._post.clock,
            address=contact.address,
            epoch=self._post.epoch,
            mine=self._post.scope.has,
            on_contact=self._hear_of_contact,
        )
        keeper.stays = True
        return keeper

    def _hear_of_contact(self, _node: str, error: KorchError | None) -> None:
        """The keeper has come to nothing there for a while, though the session is open: nothing new goes there until
        the node was looked at anew."""
        if error is None or not self.attached:
            return
        log.warning("%s: it speaks, but nothing can be done there: %s", self.name, error)
        self.attached, self.problem = False, error
        if self._attempt is not None:
            self._attempt.cancel()

    async def _dismiss(self) -> None:
        """The keeper stops: the node has another address now, or nobody watches it any more."""
        keeping, self._keeping, self.keeper = self._keeping, None, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _attend(self) -> None:
        """Hear the session until it breaks."""
        keeper = self.keeper
        assert keeper is not None
        machine, loop = self._post.fleet.machine(self.name), asyncio.get_running_loop()
        full_look_at = loop.time() + self._rest_s()
        async with machine.session(every_s=PULSE_S) as session:
            async for said in session:
                self.life.sign(loop.time())
                if isinstance(said, EngineWatch) and not said.up:
                    return  # the engine went away: a look tells why
                if isinstance(said, EngineEvent):
                    keeper.glance(said.uid, gone=said.id if said.action == "remove" else "")
                elif isinstance(said, EngineWatch):
                    keeper.glance()
                elif isinstance(said, Sample):
                    await self._samples.note(said)
                if self._removing is not None and self._removing.done():
                    removing, self._removing = self._removing, None
                    removing.result()
                    full_look_at = loop.time() + self._rest_s()
                is_due = loop.time() >= full_look_at
                if (is_due or self._left_behind) and self._removing is None:
                    if is_due:
                        contact = await self._post.fleet.attach(self.name)
                        if contact.address != keeper.address:
                            return  # another keeper must take up
                        await keeper.look_anew(contact.images)
                    self._left_behind = False
                    # The session must be heard meanwhile: an end may take its grace time.
                    self._removing = asyncio.create_task(self._surplus.remove(keeper), name=f"surplus-{self.name}")

    def _rest_s(self) -> float:
        """Seconds until the next full look."""
        usual_s = NEXT_SURPLUS_S if self._surplus.is_left else FULL_LOOK_S
        return usual_s * random.uniform(0.8, 1.2)  # noqa: S311 (jitter, not a secret)

    async def _trouble(self, error: KorchError) -> None:
        """Why it cannot be worked with goes on record; a connection that broke is no news until the node is lost."""
        if self.problem is None or error.reason != self.problem.reason:
            log.warning("%s: %s", self.name, error)
        self.problem = error
        loop = asyncio.get_running_loop()
        if not isinstance(error, EngineDownError):
            self.engine_down_since = None
        elif self.engine_down_since is None:
            self.engine_down_since = loop.time()
        if isinstance(error, InvalidError) or (isinstance(error, TransientError) and self._was_known()):
            return
        if not isinstance(error, TransientError):
            self.life.sign(loop.time())  # it answered
        with contextlib.suppress(KorchError):
            await self._post.fleet.record_failure(self.name, error)

    async def _notice_for_good(self) -> None:
        """Put on record that the node greets and does nothing else; a look takes it back. Nothing moves for it."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(NOTICE_EVERY_S)
            now = loop.time()
            if self.attached or self.life.verdict(now) not in {"alive", "quiet"}:
                self._greets_since = None
            elif self._greets_since is None:
                self._greets_since = now
            elif now - self._greets_since >= NOT_RESPONDING_S and isinstance(self.problem, TransientError | None):
                try:
                    await self._tell_of_no_response(self.problem)
                except FencedError:
                    raise
                except KorchError as error:
                    log.info("%s: what is wrong with it was not recorded: %s", self.name, error)

    async def _tell_of_no_response(self, problem: KorchError | None) -> None:
        node = self._post.view.find(Node, self.name, "")
        ready = condition(node.status.conditions, "Ready") if node is not None else None
        if node is None or (self._told and ready is not None and ready.reason == NotRespondingError.reason):
            return
        if unreachable_taint(node) is not None:
            return  # it was given up, and that is what is to be read
        why = f": {problem}" if problem is not None else ""
        text = f"{self.name} greets, but no work has been possible there for {NOT_RESPONDING_S:.0f} s{why}"
        hint = f"Nothing was moved. Look at its disk, memory and logins; if it is lost: korch node lost {self.name}"
        await self._post.fleet.record_failure(self.name, NotRespondingError(text, host=self.name, hint=hint))
        if not self._told:
            log.warning("%s", text)
            await self._event("NodeNotResponding", f"{text}. {hint}", warning=True)
        self._told = True

    async def _event(self, reason: str, text: str, *, warning: bool) -> None:
        view = self._post.view
        await tell_of_node(view, self.name, reason=reason, text=text, component="node-watch", warning=warning)

    def _was_known(self) -> bool:
        return self._post.view.find(Node, self.name, "") is not None
