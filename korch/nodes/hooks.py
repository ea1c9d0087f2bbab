"""What runs in a container after its start and before its end. HTTP goes through the SSH connection.

The other hooks before an end are a part of the node's script. The grace time is for the hook and for the end together.
Where a keeper dies in the middle, the next one begins again: a hook runs at least once, as in Kubernetes.
"""

import asyncio
from dataclasses import dataclass

from korch.engines.observed import ObservedContainer
from korch.errors import KorchError
from korch.nodes.machine import Machine
from korch.nodes.probing import ProbeKind, probe_of
from korch.nodes.readiness import run_probe
from korch.resources.defaults import GRACE_S
from korch.resources.pod import Container, LifecycleHandler, Pod, Probe

START_HOOK_S = 120  # for a hook after the start: it holds up what comes after it on this pod
LEFT_S = 2  # for the end itself when the hook has used up the grace time; Kubernetes' minimum


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container is to be ended: the words of a hook for the node's script, and the seconds for all of it."""

    grace_s: int
    hook: tuple[str, ...] = ()
    problem: str = ""  # what went wrong with the hook


def grace_of(pod: Pod, container: Container | None = None, failed: ProbeKind | None = None) -> int:
    """Seconds that a pod's container has to end; `failed`: the probe of it for which it is ended."""
    probe = probe_of(container, failed) if container is not None and failed is not None else None
    if probe is not None and probe.termination_grace_period_seconds is not None:
        return probe.termination_grace_period_seconds
    own = pod.spec.termination_grace_period_seconds
    if failed is None and pod.metadata.deletion_grace_period_seconds is not None:
        return pod.metadata.deletion_grace_period_seconds
    return GRACE_S if own is None else own


async def before_the_end(
    machine: Machine, container: Container, seen: ObservedContainer | None, grace_s: int
) -> Ending:
    """The ending of a container, after its HTTP hook if it has one. Never raises for what the hook does."""
    lifecycle = container.lifecycle
    hook = lifecycle.pre_stop if lifecycle is not None else None
    if hook is None or grace_s <= 0:
        return Ending(grace_s)
    if hook.http_get is None:
        return Ending(grace_s, hook_words(hook))
    if seen is None or seen.state != "running":
        return Ending(grace_s)
    loop = asyncio.get_running_loop()
    began = loop.time()
    problem = await _get(machine, container, seen, hook, grace_s)
    return Ending(max(LEFT_S, grace_s - int(loop.time() - began)), problem=problem)


def hook_words(hook: LifecycleHandler) -> tuple[str, ...]:
    """For the script: `exec WORD...` or `sleep SECONDS`."""
    if hook.sleep is not None:
        return ("sleep", str(hook.sleep.seconds))
    return ("exec", *hook.exec.command) if hook.exec is not None else ()


async def after_the_start(machine: Machine, container: Container, seen: ObservedContainer) -> str:
    """What went wrong with the hook after a start, "" when there is none. Raises when the node could not be asked.

    Where a keeper dies meanwhile, nobody begins it again, as in Kubernetes.
    """
    hook = container.lifecycle.post_start if container.lifecycle is not None else None
    if hook is None:
        return ""
    if hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds)
        return ""
    action = Probe(exec=hook.exec, http_get=hook.http_get, timeout_seconds=START_HOOK_S)
    return (await run_probe(machine, container, seen, action)).problem


async def _get(
    machine: Machine, container: Container, seen: ObservedContainer, hook: LifecycleHandler, grace_s: int
) -> str:
    try:
        action = Probe(http_get=hook.http_get, timeout_seconds=grace_s)
        return (await run_probe(machine, container, seen, action)).problem
    except KorchError as error:
        return str(error)
