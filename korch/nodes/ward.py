"""What a keeper knows of its node: the containers as they were seen, the images, and what it remembers. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from korch.engines.images import ImageInfo
from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.nodes.memory import Memory
from korch.nodes.parcels import WorkloadRecord
from korch.resources.pod import Pod

Containers = Mapping[str, ObservedContainer]  # of one pod, by name


@dataclass(slots=True)
class Ward:
    """One node's, of one cluster."""

    cluster_id: str
    seen: dict[str, Containers] = field(default_factory=dict)  # by pod uid
    images: set[str] = field(default_factory=set)
    fetched: dict[str, ImageInfo] = field(default_factory=dict)  # that are there since the keeper asked, by reference
    recorded: dict[str, WorkloadRecord] = field(default_factory=dict)  # wishes that the node got from here, by file
    _memory: dict[tuple[str, str], Memory] = field(default_factory=dict)  # by pod uid and container

    def take(self, containers: Iterable[ObservedContainer]) -> None:
        """Take over what a look at all of the node brought."""
        self.seen = {}
        for found in containers:
            if found.identity is not None and found.identity.cluster == self.cluster_id:
                self.put(found)

    def of(self, pod: Pod) -> Containers:
        """The pod's containers, its sandbox among them."""
        return self.seen.get(pod.metadata.uid, {})

    def put(self, found: ObservedContainer) -> None:
        """One container as it was seen just now."""
        who = _owner(found)
        self.seen[who.uid] = together({**self.seen.get(who.uid, {}), who.container: found})

    def drop(self, uid: str, container: str = "") -> None:
        """A container of a pod is gone, or all of them."""
        left = {name: found for name, found in self.seen.get(uid, {}).items() if container and name != container}
        self.seen.pop(uid, None)
        if left:
            self.seen[uid] = left

    def drop_id(self, uid: str, id_: str) -> bool:
        """The container of this id is gone; whether it was one of the pod's."""
        name = next((name for name, found in self.seen.get(uid, {}).items() if found.id == id_), "")
        if name:
            self.drop(uid, name)
        return bool(name)

    def recall(self, pod: Pod, container: str) -> Memory:
        """What is remembered of a container; "" stands for the pod."""
        return self._memory.setdefault((pod.metadata.uid, container), Memory())

    def memories(self, uid: str = "") -> list[Memory]:
        """All of a pod, or of all pods."""
        return [memory for (one, _), memory in self._memory.items() if uid in {"", one}]

    def remembered(self) -> set[str]:
        """The uids of the pods that anything is remembered of."""
        return {uid for uid, _ in self._memory}

    def forget(self, uid: str) -> None:
        """A pod is gone, or is none of this node's."""
        for key in [key for key in self._memory if key[0] == uid]:
            self._memory.pop(key).stop_checks()


def together(containers: Containers) -> Containers:
    """A pod's containers, each with the address and the published ports that its sandbox has for all."""
    sandbox = containers.get(SANDBOX)
    if sandbox is None:
        return containers
    return {
        name: found if found is sandbox else replace(found, ip=sandbox.ip, ports=sandbox.ports)
        for name, found in containers.items()
    }


def _owner(found: ObservedContainer) -> Identity:
    assert found.identity is not None
    return found.identity
