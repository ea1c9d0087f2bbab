"""The readiness checks of one node's pods: a task for each, results kept in the keeper's memory."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from korch.engines.base import Command
from korch.engines.observed import ObservedContainer
from korch.errors import FencedError, KorchError
from korch.nodes.machine import Machine
from korch.nodes.memory import Memory
from korch.nodes.readiness import run_probe
from korch.resources.pod import Pod, Probe

log = logging.getLogger(__name__)

CONTACT_S = 5.0  # for the node to show that it is there, when a check got no answer
HURRY_S = 1  # between checks while one did not pass, however long the probe's period is


class Checks:
    """Runs checks. `seen` holds the containers by pod uid; `told` hears of each pod that was checked."""

    def __init__(
        self,
        machine: Machine,
        seen: Callable[[], Mapping[str, ObservedContainer]],
        told: Callable[[Pod], Awaitable[None]],
    ) -> None:
        self._machine, self._seen, self._told = machine, seen, told

    def watch(self, group: asyncio.TaskGroup, pod: Pod, memory: Memory) -> None:
        """Check the pod from now on until its container stops; once only."""
        probe = pod.spec.containers[0].readiness_probe
        if probe is not None and (memory.probing is None or memory.probing.done()):
            name = f"probe-{pod.metadata.name}"
            memory.probing = group.create_task(self._go_on(pod, probe, memory), name=name)

    def _running(self, pod: Pod) -> ObservedContainer | None:
        found = self._seen().get(pod.metadata.uid)
        return found if found is not None and found.state == "running" else None

    async def _go_on(self, pod: Pod, probe: Probe, memory: Memory) -> None:
        period_s = probe.period_seconds or 10
        await asyncio.sleep(probe.initial_delay_seconds or 0)
        while (seen := self._running(pod)) is not None:
            memory.observe(seen)
            problem = await self._check(pod, seen, probe)
            if problem is not None and memory.is_about(self._running(pod)):
                memory.count(problem, needed=probe.success_threshold or 1, allowed=probe.failure_threshold or 3)
            await self._told(pod)
            passed = memory.readiness.passing and problem == ""
            await asyncio.sleep(period_s if passed else min(period_s, HURRY_S))

    async def _check(self, pod: Pod, seen: ObservedContainer, probe: Probe) -> str | None:
        """What is wrong, "" when nothing is; None when nobody can tell, since the node itself could not be asked."""
        try:
            verdict = await run_probe(self._machine, pod, seen, probe)
            if verdict.silent:
                async with asyncio.timeout(CONTACT_S):
                    await self._machine.transport.run(Command(("true",), timeout_s=CONTACT_S))
        except FencedError:
            raise
        except (KorchError, TimeoutError) as error:
            log.info("%s: check of %s: %s", self._machine.host, pod.metadata.name, error)
            return None
        except Exception:
            log.exception("%s: check of %s failed; this is a bug in korch", self._machine.host, pod.metadata.name)
            return None
        return verdict.problem
