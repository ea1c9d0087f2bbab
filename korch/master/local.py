"""The in-process client: a cluster opened on this machine, without a master in between."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from korch.client.base import (
    Adoption,
    Check,
    ClusterInfo,
    ImageSource,
    LogOptions,
    NodeSeen,
    NodeUsage,
    Orphan,
    Outcome,
    PlannedStep,
    Progress,
    Pruned,
    PushedImage,
    PushResult,
    Workload,
)
from korch.engines.names import container_name
from korch.errors import ConflictError, InvalidError
from korch.master.cluster import Cluster, open_cluster
from korch.master.localobjects import LocalObjects
from korch.resources.meta import Object
from korch.resources.node import Node, NodeLoad
from korch.resources.pod import Pod
from korch.resources.podstate import chosen_container
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet
from korch.settings import Settings
from korch.ssh.base import Stream

if TYPE_CHECKING:
    from korch.master.fleet import Fleet

T = TypeVar("T", bound=Object)


async def open_client(settings: Settings, *, limit: str = "", need_inventory: bool = True) -> "LocalClient":
    """A client on the cluster of the settings; the caller closes it."""
    stack = AsyncExitStack()
    try:
        cluster = await stack.enter_async_context(open_cluster(settings, limit=limit, need_inventory=need_inventory))
    except BaseException:
        await stack.aclose()
        raise
    return LocalClient(cluster, stack=stack)


class LocalClient(LocalObjects):
    """Implements `korch.client.base.Client` on objects and SSH; connections are made when first needed."""

    def __init__(self, cluster: Cluster, fleet: "Fleet | None" = None, stack: AsyncExitStack | None = None) -> None:
        super().__init__(cluster)
        self._fleet, self._stack = fleet, stack or AsyncExitStack()

    @property
    def fleet(self) -> "Fleet":
        """The hosts; loading what SSH needs takes a moment, so that is left until somebody asks."""
        if self._fleet is None:
            from korch.master.fleet import Fleet

            self._fleet = Fleet(self.cluster, prompt=_prompt if sys.stdin.isatty() and sys.stderr.isatty() else None)
        return self._fleet

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the inventory leaves out."""
        return self.cluster.inventory.warnings if self.cluster.inventory is not None else ()

    async def info(self) -> ClusterInfo:
        """The cluster's record, and who leads."""
        from korch.master.presence import masters_of
        from korch.store.lease import Lead

        record, store = self.cluster.record, self.cluster.store
        holder = await Lead(store, lock_file=self.cluster.settings.cluster_dir / "lead.lock").holder()
        lead, doing = (holder.identity, holder.note.get("doing", "")) if holder else ("", "")
        masters = await masters_of(store, lead, self.cluster.clock.now())
        return ClusterInfo(record.id, record.name, record.inventories, record.created, lead, doing, masters=masters)

    # Nodes

    async def node_names(self) -> tuple[str, ...]:
        """The nodes of the inventory that `--limit` leaves."""
        from korch.inventory.hostnames import node_name

        inventory = self.cluster.hosts()
        return tuple(node_name(host.name) for host in inventory.hosts if host.name in inventory.placeable)

    async def survey(self, names: Sequence[str] = (), *, measure_cpu: bool = True) -> tuple[NodeSeen, ...]:
        """Look at nodes now."""
        return await self.fleet.survey(names, measure_cpu=measure_cpu)

    async def set_auto_rebalance(self, on: bool) -> None:
        """Put on record whether a master levels the load."""
        from korch.master.leveling import set_auto

        await set_auto(self.cluster.store, on)

    async def usage(self) -> tuple[NodeUsage, ...]:
        """What every container of the cluster uses now."""
        from korch.master.usage import measure

        return await measure(self.cluster, self.fleet)

    async def load_history(self, count: int) -> Mapping[str, tuple[Mapping[str, float], ...]]:
        """By node the newest samples."""
        from korch.store.history import LoadHistory

        history = LoadHistory(self.cluster.settings.cluster_dir / "load.db")
        try:
            names = [node.metadata.name for node in (await self.list(Node)).items]
            return {name: tuple(one.measured for one in await history.recent(name, count)) for name in names}
        finally:
            await history.close()

    async def adopt(self, cluster_id: str = "", *, dry_run: bool) -> Adoption:
        """Rebuild what the store does not know from what runs on the nodes."""
        from korch.master.adopt import adopt

        self.cluster, done = await adopt(self.cluster, self.fleet, cluster_id, dry_run=dry_run)
        return done

    async def take_over(self) -> tuple[str, ...]:
        """After a restore: make the nodes refuse whoever led before."""
        from korch.master.backup import after_restore

        return await after_restore(self.cluster, self.fleet)

    async def orphans(self) -> tuple[Orphan, ...]:
        """Containers of this cluster that its state never heard of."""
        from korch.master.pruning import find_orphans

        return await find_orphans(self.cluster, self.fleet)

    async def prune(self, *, orphans: frozenset[str] = frozenset()) -> Pruned:
        """Remove what nothing needs on all nodes that answer."""
        from korch.master.pruning import prune

        return await prune(self.cluster, self.fleet, orphans=orphans)

    async def push_image(
        self, source: ImageSource, pattern: str, on_progress: Callable[[str, int], None]
    ) -> tuple[PushResult, ...]:
        """Send an image to nodes, without a registry."""
        from korch.master.images import push

        return await push(self.cluster, self.fleet, source, pattern, on_progress)

    async def pushed_images(self) -> tuple[PushedImage, ...]:
        """The images that were sent without a registry."""
        from korch.master.images import pushed_images

        return await pushed_images(self.cluster.store)

    async def forget_pushed(self, reference: str) -> None:
        """Ask the registry for this name again."""
        from korch.master.images import forget_pushed

        await forget_pushed(self.cluster.store, reference)

    async def check(self, name: str) -> tuple[Check, ...]:
        """The doctor."""
        from korch.master.doctor import examine

        return await examine(self.cluster, self.fleet, name)

    async def forget_node(self, name: str, *, force: bool) -> tuple[str, ...]:
        """Forget a node that left the inventory."""
        from korch.master.removal import forget_node

        return await forget_node(self.cluster.objects, name, force=force)

    async def fetch_host_key(self, name: str) -> tuple[str, str, str]:
        """(whose, key type, fingerprint): the node's key, or that of a jump host before it not accepted yet."""
        host = self.fleet.host(name)
        shown = await self.fleet.connector.shown_key(host)
        return name if shown.host == host.name else shown.host, shown.key.type, shown.key.fingerprint

    async def trust_host_key(self, name: str, fingerprint: str) -> None:
        """Accept the key that `fetch_host_key` told of when it still has this fingerprint."""
        shown = await self.fleet.connector.shown_key(self.fleet.host(name))
        if shown.key.fingerprint != fingerprint:
            raise ConflictError(
                f"{shown.host} shows {shown.key.fingerprint} now, not {fingerprint}; nothing was accepted",
                hint="Compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine itself.",
            )
        self.fleet.connector.trust(shown)

    # Workloads

    async def resolve_image(
        self,
        image: str,
        *,
        auth: bytes | None = None,
        pull: bool = True,
        of: Object | None = None,
        on_asking: Callable[[str], None] | None = None,
    ) -> str:
        """The exact image that a reference stands for, as the first node that can tell sees it.

        The registry is asked, so that a tag that moved is noticed; an image that only the nodes have is found there.
        What was sent there by `korch image push` is meant until it is forgotten.
        """
        from korch.master.images import pushed_id

        if pushed := await pushed_id(self.cluster.store, image):
            return pushed
        from korch.master.resolving import Resolver

        led = (await self.info()).has_master
        return await Resolver(self.fleet, led=led, on_asking=on_asking).exact(image, auth, pull=pull, of=of)

    async def converge(
        self,
        workloads: Sequence[Workload],
        *,
        since: Mapping[Workload, int],
        timeout_s: float,
        on_progress: Callable[[Progress], None],
    ) -> tuple[Outcome, ...]:
        """Make these wishes true in this process, or follow the one that does."""
        from korch.master.oneshot import OneShot

        run = OneShot(self.cluster, self.fleet, workloads, since=since, on_progress=on_progress)
        return await run.run(timeout_s)

    async def preview(self, objects: Sequence[Object]) -> tuple[PlannedStep, ...]:
        """What declaring these objects would change; nothing is done."""
        from korch.controllers.preview import preview

        nodes = (await self.list(Node)).items
        loads = {load.metadata.name: load for load in (await self.list(NodeLoad)).items}
        pods, sets = (await self.list(Pod)).items, (await self.list(ReplicaSet)).items
        workloads = [obj for obj in objects if isinstance(obj, Deployment | ReplicaSet | DaemonSet | Pod)]
        wishes = [await self.cluster.objects.would_apply(obj) for obj in workloads]
        now = self.cluster.clock.now()
        return preview(wishes, sets, pods, nodes, loads, now=now, allowed=self.fleet.placeable)

    async def fail_over(self) -> tuple[str, ...]:
        """Give up the replicas of nodes that nobody reaches."""
        from korch.master.failover import fail_over

        return await fail_over(self.cluster, self.fleet)

    # Streams

    @asynccontextmanager
    async def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[Stream]:
        """The running log command of a pod's container."""
        machine = self.fleet.machine(_node_of(pod))
        command = await machine.logs_command(
            self._container(pod, options.container),
            follow=options.follow,
            tail=options.tail,
            since=f"{options.since_s}s" if options.since_s is not None else "",
            timestamps=options.timestamps,
        )
        async with machine.transport.stream(command, become=machine.become) as stream:
            yield stream

    @asynccontextmanager
    async def exec(
        self, pod: Pod, argv: Sequence[str], *, stdin: bool, pty: tuple[int, int] | None, container: str = ""
    ) -> AsyncIterator[Stream]:
        """A command in a pod's container."""
        machine = self.fleet.machine(_node_of(pod))
        name = self._container(pod, container)
        command = await machine.exec_command(name, tuple(argv), stdin=stdin, tty=pty is not None)
        async with machine.transport.stream(command, pty=pty, become=machine.become) as stream:
            yield stream

    def _container(self, pod: Pod, wanted: str) -> str:
        """The name of a pod's container in its node's engine."""
        meta, name = pod.metadata, chosen_container(pod, wanted)
        return container_name(self.cluster.record.name, meta.namespace, meta.name, name, meta.uid)

    async def close(self) -> None:
        """Release everything."""
        if self._fleet is not None:
            await self._fleet.close()
        await self._stack.aclose()


def _node_of(pod: Pod) -> str:
    if not pod.spec.node_name:
        raise InvalidError(
            f'pod "{pod.metadata.name}" runs nowhere yet', hint=f"See why: korch why {pod.metadata.name}"
        )
    return pod.spec.node_name


def _prompt(question: str) -> str:
    import getpass

    return getpass.getpass(question)
