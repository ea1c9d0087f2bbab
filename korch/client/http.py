"""The client over HTTPS: the Kubernetes API that `korch master` serves, and korch's own paths where that has no word.

What belongs beside the state file is refused with a word on where to do it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol, TypeVar

from korch.client import forms, kube
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
from korch.client.kubeconfig import Access
from korch.client.remote import RemoteObjects
from korch.client.requests import Requests
from korch.client.wire import Call
from korch.resources.codec import to_dict
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import kind_of
from korch.resources.meta import Object
from korch.ssh.base import Stream

V = TypeVar("V")

PATIENCE_S = 60.0
_ACT_S = 630.0  # some of korch's own calls have images pulled


class Follow(Protocol):
    """Waits until a master has made wishes true; see `Client.converge`."""

    async def __call__(
        self,
        client: "HttpClient",
        workloads: Sequence[Workload],
        *,
        since: Mapping[Workload, int],
        timeout_s: float,
        on_progress: Callable[[Progress], None],
    ) -> tuple[Outcome, ...]:
        """The outcomes, in order."""
        ...


class HttpClient(RemoteObjects):
    """Implements `korch.client.base.Client`. `follow` is given, as it stands on reconcilers, which stand on this."""

    warnings: tuple[str, ...] = ()

    def __init__(self, access: Access, *, follow: Follow, patience_s: float = PATIENCE_S) -> None:
        super().__init__(Requests(access, patience_s=patience_s))
        self._access, self._follow = access, follow

    async def meet(self) -> None:
        """Returns when korch answers there; see `Requests.meet`."""
        await self.requests.meet()

    # Korch's own paths

    async def look(self, name: str, type_: type[V], namespace: str = "", /, **query: str | Sequence[str]) -> V:
        """What korch tells under its own path."""
        pairs = tuple(
            (key, value) for key, found in query.items() for value in ((found,) if isinstance(found, str) else found)
        )
        call = Call("GET", kube.own_path(forms.LOOKS, name, namespace), pairs)
        answer = await self.requests.ask(call, answer_s=_ACT_S)
        return forms.decode(answer.body, type_)

    async def act(self, name: str, type_: type[V], namespace: str = "", /, **wish: object) -> V:
        """What korch does on request under its own path, and says of it."""
        call = Call("POST", kube.own_path(forms.ACTS, name, namespace), body=forms.encode(wish))
        answer = await self.requests.ask(call, answer_s=_ACT_S)
        return forms.decode(answer.body, type_)

    async def info(self) -> ClusterInfo:
        """The cluster's record, and who leads."""
        return await self.look("info", ClusterInfo, self._access.namespace or DEFAULT_NAMESPACE)

    # Nodes

    async def node_names(self) -> tuple[str, ...]:
        """The nodes of the inventory."""
        from korch.client.declare import in_inventory
        from korch.resources.node import Node

        return tuple(node.metadata.name for node in (await self.list(Node)).items if in_inventory(node))

    async def survey(self, names: Sequence[str] = (), *, measure_cpu: bool = True) -> tuple[NodeSeen, ...]:
        """Look at nodes now."""
        return await self.look("survey", tuple[NodeSeen, ...], name=names, cpu=str(measure_cpu).lower())

    async def set_auto_rebalance(self, on: bool) -> None:
        """Put on record whether a master levels the load."""
        await self.act("rebalance", type(None), on=on)

    async def usage(self) -> tuple[NodeUsage, ...]:
        """What every container of the cluster uses now."""
        return await self.look("usage", tuple[NodeUsage, ...])

    async def load_history(self, count: int) -> Mapping[str, tuple[Mapping[str, float], ...]]:
        """By node the newest samples."""
        return await self.look("history", dict[str, tuple[Mapping[str, float], ...]], count=str(count))

    async def orphans(self) -> tuple[Orphan, ...]:
        """Containers of this cluster that its state never heard of."""
        return await self.look("orphans", tuple[Orphan, ...])

    async def check(self, name: str) -> tuple[Check, ...]:
        """The doctor."""
        return await self.look("check", tuple[Check, ...], name=name)

    async def prune(self, *, orphans: frozenset[str] = frozenset()) -> Pruned:
        """Remove what nothing needs on all nodes that answer."""
        return await self.act("prune", Pruned, orphans=sorted(orphans))

    async def forget_node(self, name: str, *, force: bool) -> tuple[str, ...]:
        """Forget a node that left the inventory."""
        return await self.act("forget-node", tuple[str, ...], name=name, force=force)

    async def fail_over(self) -> tuple[str, ...]:
        """Give up the replicas of nodes that nobody reaches."""
        return await self.act("fail-over", tuple[str, ...])

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
        """The exact image that a reference stands for, as a node sees it."""
        namespace = self._access.namespace or DEFAULT_NAMESPACE
        wish = {"image": image, "auth": forms.text_of(auth), "pull": pull, "of": to_dict(of) if of else None}
        return await self.act("resolve", str, namespace, **wish)

    async def preview(self, objects: Sequence[Object]) -> tuple[PlannedStep, ...]:
        """What declaring these objects would change; nothing is done."""
        spaces = {obj.metadata.namespace or DEFAULT_NAMESPACE for obj in objects if kind_of(obj).namespaced}
        namespace = spaces.pop() if len(spaces) == 1 else ""
        return await self.act("preview", tuple[PlannedStep, ...], namespace, objects=[to_dict(obj) for obj in objects])

    async def converge(
        self,
        workloads: Sequence[Workload],
        *,
        since: Mapping[Workload, int],
        timeout_s: float,
        on_progress: Callable[[Progress], None],
    ) -> tuple[Outcome, ...]:
        """Follow the master that makes these wishes true; while it is away, it has until the time is over to return."""
        self.requests.patience_s = max(self.requests.patience_s, timeout_s)
        return await self._follow(self, workloads, since=since, timeout_s=timeout_s, on_progress=on_progress)

    # Streams

    def logs(self, pod: Any, options: LogOptions) -> AbstractAsyncContextManager[Stream]:
        """What a pod's container prints."""
        from korch.client.streams import log_stream

        return log_stream(self.requests, pod, options)

    def exec(
        self, pod: Any, argv: Sequence[str], *, stdin: bool, pty: tuple[int, int] | None, container: str = ""
    ) -> AbstractAsyncContextManager[Stream]:
        """A command in a pod's container."""
        from korch.client.streams import exec_stream

        return exec_stream(self.requests, pod, argv, stdin=stdin, pty=pty, container=container)

    # What belongs beside the state file

    async def adopt(self, cluster_id: str = "", *, dry_run: bool) -> Adoption:
        """Refused."""
        self._refuse("adopting containers")

    async def take_over(self) -> tuple[str, ...]:
        """Refused."""
        self._refuse("taking over after a restore")

    async def push_image(
        self, source: ImageSource, pattern: str, on_progress: Callable[[str, int], None]
    ) -> tuple[PushResult, ...]:
        """Refused."""
        self._refuse("sending images to nodes")

    async def pushed_images(self) -> tuple[PushedImage, ...]:
        """Refused."""
        self._refuse("listing the images that were sent")

    async def forget_pushed(self, reference: str) -> None:
        """Refused."""
        self._refuse("forgetting an image that was sent")

    async def fetch_host_key(self, name: str) -> tuple[str, str, str]:
        """Refused."""
        self._refuse("trusting host keys")

    async def trust_host_key(self, name: str, fingerprint: str) -> None:
        """Refused."""
        self._refuse("trusting host keys")

    def _refuse(self, what: str) -> NoReturn:
        raise kube.beside_the_state(what, self._access.server)

    async def close(self) -> None:
        """Hang up."""
        await self.requests.close()
