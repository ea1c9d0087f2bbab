"""The one door for the command line, tests and scripts: what a client of a cluster can do.

Two forms: over HTTP to a running master, and in-process on `objects` when none runs (built in `korch/master/local.py`).
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, TypeVar

import msgspec

from korch.errors import KorchError
from korch.objects.values import Change, ObjectList
from korch.resources.meta import LabelSelector, Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.ssh.base import Stream

T = TypeVar("T", bound=Object)


class Workload(msgspec.Struct, frozen=True):
    """Names a workload: a Deployment of a namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As a person writes it: the namespace only when it is not the default one."""
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"


class NodeSeen(msgspec.Struct, frozen=True):
    """What one look at a node brought. With `error`, `node` and `load` are as stored before."""

    node: Node
    load: NodeLoad | None
    error: KorchError | None = None


class Progress(msgspec.Struct, frozen=True):
    """One step of a rollout. `phase`: scheduled, pulling, starting, running, ready, failed, lost, stopping, gone."""

    workload: Workload
    pod: str
    node: str
    phase: str
    message: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """How a rollout ended. `pods` are those of the workload that stand; `error` is None when the wish is true."""

    workload: Workload
    changed: bool
    pods: tuple[Pod, ...] = ()
    error: KorchError | None = None
    notes: tuple[str, ...] = ()


class PlannedStep(msgspec.Struct, frozen=True):
    """One thing that would happen. `node` "" = no node fits."""

    do: Literal["start", "stop", "wait"]
    workload: str
    node: str
    pod: str  # "" for one that has no name yet
    why: str


class Check(msgspec.Struct, frozen=True):
    """One precondition on a node, as `korch node check` prints it. `cure` says what to do when it is not ok."""

    name: str
    result: Literal["ok", "warn", "fail"]
    detail: str
    cure: str = ""


class LogOptions(msgspec.Struct, frozen=True):
    """As `kubectl logs`: `tail` None = all; `since_s` None = from the beginning; `container` "" = the usual one."""

    follow: bool = False
    tail: int | None = None
    since_s: int | None = None
    timestamps: bool = False
    previous: bool = False
    container: str = ""


class MasterSeen(msgspec.Struct, frozen=True):
    """A master that runs: whether it leads or waits, since when, and when it last showed itself."""

    identity: str
    leads: bool
    since: str
    seen: str = ""


class ClusterInfo(msgspec.Struct, frozen=True):
    """The cluster's record: `inventories` as recorded at its making; `lead` is who leads now, "" for nobody.

    `doing`: "master", or what the command that leads is about. `masters`: those that run, the one that leads first.
    """

    id: str
    name: str
    inventories: tuple[str, ...]
    created: str
    lead: str = ""
    doing: str = ""
    notes: tuple[str, ...] = msgspec.field(default=())
    masters: tuple[MasterSeen, ...] = ()

    @property
    def has_master(self) -> bool:
        """Whether a master leads, which looks after the nodes."""
        return self.doing == "master"


class ClusterFound(msgspec.Struct, frozen=True):
    """A cluster that nodes tell of by claims, containers and kept wishes."""

    id: str
    name: str
    master_host: str
    nodes: tuple[str, ...]
    containers: int
    workloads: tuple[str, ...]


class Adoption(msgspec.Struct, frozen=True):
    """What an adoption did, or would do. `taken` is empty when everything is on record already."""

    clusters: tuple[ClusterFound, ...]
    id: str  # of the cluster that is adopted
    name: str
    taken: tuple[str, ...]
    notes: tuple[str, ...] = ()
    takes_over: bool = False  # the store becomes another cluster's


class Orphan(msgspec.Struct, frozen=True):
    """A container of the cluster whose pod uid its state never heard of."""

    node: str
    container: str
    pod: str
    uid: str
    state: str


class Pruned(msgspec.Struct, frozen=True):
    """What a pruning removed, and what it could not look at."""

    removed: tuple[str, ...]
    notes: tuple[str, ...] = ()


class ImageSource(msgspec.Struct, frozen=True):
    """An image to send: `id` as engines name it, its bytes as `docker save` gives them, and the names to know it by.

    The first of `references` is its name inside the archive; none: it has only its id. `total_bytes` 0: not known.
    """

    id: str
    references: tuple[str, ...]
    open: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
    total_bytes: int = 0


class PushedImage(msgspec.Struct, frozen=True):
    """A name under which an image was sent from a caller's machine, and what it means since then."""

    reference: str
    id: str
    pushed_at: str


class PushResult(msgspec.Struct, frozen=True):
    """How sending an image to one node ended."""

    node: str
    result: Literal["sent", "present", "failed"]
    error: KorchError | None = None


class ContainerUsage(msgspec.Struct, frozen=True):
    """What a running container uses now; None where it cannot be told. Memory is without what the kernel can drop."""

    uid: str  # of its pod
    container: str
    cpu_millis: int | None
    memory_bytes: int | None


class NodeUsage(msgspec.Struct, frozen=True):
    """The containers of one node, or why they could not be measured."""

    node: str
    containers: tuple[ContainerUsage, ...] = ()
    error: KorchError | None = None


class Client(Protocol):
    """A cluster. Object calls are those of `korch.objects.Objects` and raise the same errors."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the person at the keyboard, such as what an inventory leaves out."""
        ...

    async def info(self) -> ClusterInfo:
        """The cluster's record."""
        ...

    async def get(self, type_: type[T], name: str, namespace: str = "default") -> T:
        """One object; `NotFoundError`."""
        ...

    async def list(
        self, type_: type[T], namespace: str = "", *, selector: str | LabelSelector | None = None
    ) -> ObjectList[T]:
        """Objects of one kind, sorted by namespace and name; namespace "" = all."""
        ...

    def watch(
        self, type_: type[T], namespace: str = "", *, after: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Change[T]]]:
        """Changes after a revision, without end."""
        ...

    async def modify(self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None]) -> T:
        """Read, change, write; again on conflict."""
        ...

    async def create(self, obj: T) -> T:
        """A new object; `AlreadyExistsError`."""
        ...

    async def apply(self, obj: Object) -> tuple[Object, Literal["created", "configured", "unchanged"]]:
        """Declare an object."""
        ...

    async def delete(self, type_: type[T], name: str, namespace: str = "default") -> None:
        """Remove an object; what it owns follows."""
        ...

    async def node_names(self) -> tuple[str, ...]:
        """The nodes of the inventory that `--limit` leaves, in its order; none is looked at."""
        ...

    async def survey(self, names: Sequence[str] = (), *, measure_cpu: bool = True) -> tuple[NodeSeen, ...]:
        """Look at nodes now (no names: all), all at once, in the inventory's order; silent ones with an error."""
        ...

    async def set_auto_rebalance(self, on: bool) -> None:
        """Whether a running master levels the load by itself from now on."""
        ...

    async def usage(self) -> tuple[NodeUsage, ...]:
        """What every container of the cluster uses now, by node; one round trip a node."""
        ...

    async def load_history(self, count: int) -> Mapping[str, tuple[Mapping[str, float], ...]]:
        """By node the newest samples (cpu, memory: 0..1; load1), the oldest first."""
        ...

    async def resolve_image(
        self,
        image: str,
        *,
        auth: bytes | None = None,
        pull: bool = True,
        of: Object | None = None,
        on_asking: Callable[[str], None] | None = None,
    ) -> str:
        """The exact image that a reference stands for now, as a node sees it: `repo@sha256:...` or an image id.

        `pull` False: only what nodes hold counts, and no registry is asked. `of`: what is to run; it is brought only to
        a node that may run that. `on_asking` hears which node is asked, where that is known.
        """
        ...

    async def converge(
        self,
        workloads: Sequence[Workload],
        *,
        since: Mapping[Workload, int],
        timeout_s: float,
        on_progress: Callable[[Progress], None],
    ) -> tuple[Outcome, ...]:
        """Make these wishes true, or follow the master that does; an outcome for each, in order.

        `since` gives the generation from which on a rollback is the answer to this wish.
        """
        ...

    async def preview(self, objects: Sequence[Object]) -> tuple[PlannedStep, ...]:
        """What declaring these objects would change, per node and in order; nothing is done."""
        ...

    async def fail_over(self) -> tuple[str, ...]:
        """Give up the replicas of nodes that nobody reaches, so that others take their place; a line for each."""
        ...

    async def adopt(self, cluster_id: str = "", *, dry_run: bool) -> Adoption:
        """Rebuild what the store lacks from what runs on the nodes. `cluster_id` "" = the only one that fits."""
        ...

    async def take_over(self) -> tuple[str, ...]:
        """After a restore: make the nodes refuse whoever led before; sentences on what remains to be done."""
        ...

    async def orphans(self) -> tuple[Orphan, ...]:
        """Containers of this cluster that its state never heard of."""
        ...

    async def prune(self, *, orphans: frozenset[str] = frozenset()) -> Pruned:
        """Remove what nothing needs on all nodes that answer; also the orphans of these uids."""
        ...

    async def push_image(
        self, source: ImageSource, pattern: str, on_progress: Callable[[str, int], None]
    ) -> tuple[PushResult, ...]:
        """Send an image to the nodes that a pattern of the inventory means ("" = all), without a registry.

        `on_progress` hears each node's name and the bytes sent to it so far.
        """
        ...

    async def pushed_images(self) -> tuple[PushedImage, ...]:
        """The images that were sent without a registry."""
        ...

    async def forget_pushed(self, reference: str) -> None:
        """Ask the registry for this name again; `NotFoundError`."""
        ...

    async def check(self, name: str) -> tuple[Check, ...]:
        """The doctor: every precondition on one node."""
        ...

    async def forget_node(self, name: str, *, force: bool) -> tuple[str, ...]:
        """Forget a node that left the inventory; the pods that were given up with it (only with `force`)."""
        ...

    async def fetch_host_key(self, name: str) -> tuple[str, str, str]:
        """(whose, key type, SHA256 fingerprint): the node's key, or that of a jump host before it not accepted yet."""
        ...

    async def trust_host_key(self, name: str, fingerprint: str) -> None:
        """Accept the key that `fetch_host_key` told of when it still has this fingerprint."""
        ...

    def logs(self, pod: Pod, options: LogOptions) -> AbstractAsyncContextManager[Stream]:
        """The running log command of a pod's container."""
        ...

    def exec(
        self, pod: Pod, argv: Sequence[str], *, stdin: bool, pty: tuple[int, int] | None, container: str = ""
    ) -> AbstractAsyncContextManager[Stream]:
        """A command in a pod's container, by default the usual one."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...
