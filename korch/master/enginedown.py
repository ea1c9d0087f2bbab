"""A node that is heard while its engine is not: whether its containers live on, and what becomes of them if not."""

import logging
from collections.abc import Callable, Collection, Sequence

from korch.master.failover import give_up, has_local_volume
from korch.nodes.machine import Machine
from korch.objects.values import Clock
from korch.objects.view import View
from korch.resources.pod import Pod
from korch.resources.podstate import has_begun, is_counted, statuses_of

log = logging.getLogger(__name__)


def container_ids(pod: Pod) -> frozenset[str]:
    """The ids that the engine gave its containers, without "docker://" if that is before them."""
    return frozenset(status.container_id.rpartition("://")[2] for status in statuses_of(pod) if status.container_id)


def dead_pods(pods: Sequence[Pod], living: Collection[str] | None) -> tuple[Pod, ...]:
    """The pods to replace elsewhere; none as long as a process of any of them may live. Pure.

    `living`: ids of containers that have processes; None: that cannot be told. Pods with data there stay.
    """
    if living is None or any(container_ids(pod) & set(living) for pod in pods):
        return ()
    return tuple(pod for pod in pods if container_ids(pod) and not has_local_volume(pod))


async def replace_dead(name: str, machine: Machine, view: View, clock: Clock, *, is_down: Callable[[], bool]) -> None:
    """Give up the pods of a node whose engine is down, once the kernel there says that none of their processes lives.

    `is_down` is asked again after the look: an engine that answers again starts them itself.
    """
    pods = [pod for pod in view.all(Pod) if pod.spec.node_name == name and is_counted(pod) and has_begun(pod)]
    if all(has_local_volume(pod) for pod in pods):
        return
    dead = dead_pods(pods, await machine.living(frozenset().union(*map(container_ids, pods))))
    for pod in dead if is_down() else ():
        text = f"the container engine of {name} does not answer, and no process of its containers lives"
        if await give_up(pod, text, view.objects, clock.now()):
            log.warning("%s: %s is replaced elsewhere: %s", name, pod.metadata.name, text)
