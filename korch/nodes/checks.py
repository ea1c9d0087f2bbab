"""The checks of one node's pods: a task for each endpoint that is asked, results kept in the keeper's memory."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from korch.engines.base import Command
from korch.engines.observed import ObservedContainer
from korch.errors import FencedError, KorchError
from korch.nodes.machine import Machine
from korch.nodes.memory import Memory
from korch.nodes.probing import Finding, ProbeKind, checked, probe_of, shared_checks
from korch.nodes.readiness import Verdict, run_probe
from korch.resources.pod import Container, Pod, Probe

log = logging.getLogger(__name__)

CONTACT_S = 5.0  # for the node to show that it is there, when a check got no answer
LATE_S = 0.5  # a deadline that is noticed so late was missed by this process, not by the app
UNKNOWN = Finding(known=False)


class Checks:
    """Runs checks. `seen` holds the containers by pod uid and name; `told` hears of each pod that was checked, `sick`
    of each with a container that is to be ended. While the node is in `trouble`, nothing counts against its pods.
    """

    def __init__(
        self,
        machine: Machine,
        seen: Callable[[], Mapping[str, Mapping[str, ObservedContainer]]],
        told: Callable[[Pod], Awaitable[None]],
        *,
        sick: Callable[[Pod], None] = lambda _: None,
        trouble: Callable[[], bool] = lambda: False,
    ) -> None:
        self._machine, self._seen, self._told, self._sick, self._trouble = machine, seen, told, sick, trouble

    def watch(self, group: asyncio.TaskGroup, pod: Pod, container: Container, memory: Memory) -> None:
        """Check a container from now on until it stops; once only."""
        seen = self._running(pod, container)
        if seen is None:
            return
        memory.observe(pod, container, seen, asyncio.get_running_loop().time())
        if memory.checking_run != memory.about:
            memory.stop_checks()
            memory.checking_run = memory.about
        for kinds in shared_checks(container):
            task = memory.checking.get(kinds)
            held_back = memory.health is None or memory.health.due(kinds) is None
            if not held_back and (task is None or task.done()):
                name = f"{kinds[0]}-{pod.metadata.name}-{container.name}"
                memory.checking[kinds] = group.create_task(self._go_on(group, pod, container, kinds, memory), name=name)

    def _running(self, pod: Pod, container: Container) -> ObservedContainer | None:
        found = self._seen().get(pod.metadata.uid, {}).get(container.name)
        return found if found is not None and found.state == "running" else None

    async def _go_on(
        self,
        group: asyncio.TaskGroup,
        pod: Pod,
        container: Container,
        kinds: tuple[ProbeKind, ...],
        memory: Memory,
    ) -> None:
        loop = asyncio.get_running_loop()
        probe = probe_of(container, kinds[0])
        while probe is not None and memory.health is not None and (due := memory.health.due(kinds)) is not None:
            await asyncio.sleep(due - loop.time())
            seen = self._running(pod, container)
            if seen is None or not memory.is_about(seen):
                return  # the next watch is of another run
            found = await self._check(container, seen, probe, kinds)
            if memory.health is not None and memory.is_about(self._running(pod, container)):
                held_back = not memory.health.started
                memory.health = checked(memory.health, kinds, found, loop.time())
                if memory.health.sick is not None:
                    self._sick(pod)
                if held_back and memory.health.started:
                    self.watch(group, pod, container, memory)
            await self._told(pod)

    async def _check(
        self, container: Container, seen: ObservedContainer, probe: Probe, kinds: Sequence[ProbeKind]
    ) -> dict[ProbeKind, Finding]:
        """What was found, for each kind of probe that it is for."""
        try:
            began = asyncio.get_running_loop().time()
            verdict = await run_probe(self._machine, container, seen, probe)
            if verdict.problem and (self._trouble() or not await self._is_the_apps(verdict, probe, began)):
                return dict.fromkeys(kinds, UNKNOWN)
        except FencedError:
            raise
        except (KorchError, TimeoutError) as error:
            log.info("%s: check of %s: %s", self._machine.host, seen.name, error)
            return dict.fromkeys(kinds, UNKNOWN)
        except Exception:
            log.exception("%s: check of %s failed; this is a bug in korch", self._machine.host, seen.name)
            return dict.fromkeys(kinds, UNKNOWN)
        # Where a check can never be made, nobody is ended for it; but a pod gets no Ready, and says why.
        return {kind: Finding(verdict.problem, kind == "readiness" or not verdict.impossible) for kind in kinds}

    async def _is_the_apps(self, verdict: Verdict, probe: Probe, began: float) -> bool:
        """Whether silence is the app's: neither this process nor the connection to the node was stalled."""
        if not verdict.silent:
            return True
        timeout_s = float(probe.timeout_seconds or 1)
        if asyncio.get_running_loop().time() - began > timeout_s + LATE_S:
            return False
        async with asyncio.timeout(min(CONTACT_S, timeout_s)):
            await self._machine.transport.run(Command(("true",), timeout_s=CONTACT_S))
        return True
