"""The client over HTTPS: the Kubernetes API that `korch master` serves, and korch's own paths where that has no word.

A master that goes and comes back in between is waited for, as soon as the API has answered once: every request here
may be sent twice. What belongs beside the state file is refused with a word on where to do it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import partial
from typing import Any, Literal, NoReturn, Protocol, TypeVar

import msgspec

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
from korch.client.wire import ANSWER_S, Answer, ApiUnreachableError, Call, Wire
from korch.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    KorchError,
    NotFoundError,
)
from korch.objects import apply as applying
from korch.objects.objects import Change, ObjectList
from korch.objects.prepare import given_keys, named, not_found_hint, subject
from korch.resources.codec import encode, to_dict, with_meta
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import KINDS, kind_of, kind_of_type
from korch.resources.meta import LabelSelector, Object
from korch.resources.misc import Namespace
from korch.resources.selectors import matches, parse_selector
from korch.ssh.base import Stream

T = TypeVar("T", bound=Object)
V = TypeVar("V")

PATIENCE_S = 60.0
ACT_S = 630.0  # some of korch's own calls have images pulled
_FIRST_REST_S, _LONGEST_REST_S = 0.1, 2.0
_SILENT_S = 150.0  # of a watch: bookmarks come every minute
_WATCH_S = 1800
_TRIES = 16
_SUGGEST_FROM = 500


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


class HttpClient:
    """Implements `korch.client.base.Client`. `follow` is given, as it stands on reconcilers, which stand on this."""

    warnings: tuple[str, ...] = ()

    def __init__(self, access: Access, *, follow: Follow, patience_s: float = PATIENCE_S) -> None:
        self.access, self.wire = access, Wire(access)
        self._follow = follow
        self._patience_s, self._met = patience_s, False

    async def meet(self) -> None:
        """Returns when korch answers there: what other clusters hold is none of its business. `ForbiddenError`."""
        found = msgspec.json.decode((await self._ask(Call("GET", "/version"))).body)
        if not str(found.get("gitVersion", "")).endswith("+korch"):
            raise ForbiddenError(
                f"{self.access.server} is not served by korch, but says {found.get('gitVersion') or 'nothing'}",
                hint=f"The way there is from {self.access.source}. For another: --context NAME, --kubeconfig FILE.",
            )
        self._met = True

    # Requests

    async def _ask(self, call: Call, *, answer_s: float = ANSWER_S) -> Answer:
        """The answer when it is a good one; else the error that it tells of."""

        async def once() -> Answer:
            answer = await self.wire.ask(call, answer_s=answer_s)
            if answer.status >= 300:
                raise self.error_in(answer.status, answer.body)
            return answer

        return await self._patiently(once)

    async def _patiently(self, once: Callable[[], Awaitable[V]]) -> V:
        loop = asyncio.get_running_loop()
        end, rest_s = loop.time() + (self._patience_s if self._met else 0.0), 0.0
        while True:
            try:
                return await once()
            except (ApiUnreachableError, kube.BusyError):
                if loop.time() + rest_s >= end:
                    raise
            await asyncio.sleep(rest_s)
            rest_s = min(max(2 * rest_s, _FIRST_REST_S), _LONGEST_REST_S)

    def error_in(self, status: int, body: bytes) -> KorchError:
        """What an answer that is no success tells of."""
        return kube.error_in(status, body, self.access)

    async def look(self, name: str, type_: type[V], namespace: str = "", /, **query: str | Sequence[str]) -> V:
        """What korch tells under its own path."""
        pairs = tuple(
            (key, value) for key, found in query.items() for value in ((found,) if isinstance(found, str) else found)
        )
        answer = await self._ask(Call("GET", kube.own_path(forms.LOOKS, name, namespace), pairs), answer_s=ACT_S)
        return forms.decode(answer.body, type_)

    async def act(self, name: str, type_: type[V], namespace: str = "", /, **wish: object) -> V:
        """What korch does on request under its own path, and says of it."""
        answer = await self._ask(
            Call("POST", kube.own_path(forms.ACTS, name, namespace), body=forms.encode(wish)), answer_s=ACT_S
        )
        return forms.decode(answer.body, type_)

    async def info(self) -> ClusterInfo:
        """The cluster's record, and who leads."""
        return await self.look("info", ClusterInfo, self.access.namespace or DEFAULT_NAMESPACE)

    # Objects

    async def get(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T:
        """One object."""
        found = await self.find(type_, name, namespace)
        if found is None:
            raise NotFoundError(
                named(type_, name, namespace, " not found"), hint=await self._hint(type_, namespace, name)
            )
        return found

    async def find(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T | None:
        """The object, or None."""
        if not kube.is_name(name):
            return None
        try:
            answer = await self._ask(Call("GET", kube.path_of(kind_of_type(type_), namespace, name)))
        except NotFoundError:
            return None
        return kube.typed(type_, answer.body)

    async def _hint(self, type_: type[Object], namespace: str, name: str) -> str:
        kind = kind_of_type(type_)
        try:
            answer = await self._ask(Call("GET", kube.path_of(kind, namespace), (("limit", str(_SUGGEST_FROM)),)))
        except KorchError:
            return ""
        return not_found_hint(
            kind, namespace, name, [item.metadata.name for item in kube.listing(type_, answer.body).items]
        )

    async def list(
        self, type_: type[T], namespace: str = "", *, selector: str | LabelSelector | None = None
    ) -> ObjectList[T]:
        """Objects of one kind."""
        wanted = parse_selector(selector) if isinstance(selector, str) else selector
        query = (("labelSelector", selector),) if isinstance(selector, str) and selector else ()
        answer = await self._ask(Call("GET", kube.path_of(kind_of_type(type_), namespace), query))
        found: kube.Listing[T] = kube.listing(type_, answer.body)
        items = (item for item in found.items if matches(wanted, item.metadata.labels))
        return ObjectList(tuple(items), int(found.metadata.resource_version))

    @asynccontextmanager
    async def watch(
        self, type_: type[T], namespace: str = "", *, after: int
    ) -> AsyncIterator[AsyncIterator[Change[T]]]:
        """Changes after a revision; `previous` is known of what this watch has told of."""
        async with aclosing(self._changes(type_, namespace, after)) as changes:
            yield changes

    async def _changes(self, type_: type[T], namespace: str, after: int) -> Any:
        known: dict[tuple[str, str], T] = {}
        while True:
            lines = await self._patiently(partial(self._opened, type_, namespace, after))
            try:
                async for line in lines:
                    event = msgspec.json.decode(line, type=kube.Event)
                    if event.type == "ERROR":
                        raise self.error_in(kube.code_in(event.object), bytes(event.object))
                    obj = kube.typed(type_, bytes(event.object))
                    after = int(obj.metadata.resource_version or after)
                    if event.type == "BOOKMARK":
                        continue
                    key = (obj.metadata.namespace, obj.metadata.name)
                    previous = known.pop(key, None)
                    if event.type != "DELETED":
                        known[key] = obj
                    yield Change(event.type, obj, previous, after)
            except ApiUnreachableError:
                pass
            finally:
                await lines.aclose()
            await asyncio.sleep(_FIRST_REST_S)  # a server that goes ends each watch at once

    async def _opened(self, type_: type[T], namespace: str, after: int) -> Any:
        """The lines of a watch that has begun."""
        query = {"watch": "true", "resourceVersion": after, "allowWatchBookmarks": "true", "timeoutSeconds": _WATCH_S}
        call = Call(
            "GET",
            kube.path_of(kind_of_type(type_), namespace),
            tuple((key, str(value)) for key, value in query.items()),
        )
        lines = self._lines(call)
        await anext(lines)
        return lines

    async def _lines(self, call: Call) -> Any:
        """b"" when the answer has begun, then its lines. A connection that is silent for too long is given up."""
        async with self.wire.answering(call) as (head, pieces):
            if head.status_code >= 300:
                raise self.error_in(head.status_code, b"".join([piece async for piece in pieces]))
            yield b""
            rest = b""
            while (piece := await _next(pieces)) is not None:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line

    async def modify(self, type_: type[T], name: str, namespace: str, change: Callable[[T], T | None]) -> T:
        """Read, change, write; again on conflict."""
        for attempt in range(_TRIES):
            stored = await self.get(type_, name, namespace)
            wanted = change(stored)
            if wanted is None or wanted == stored:
                return stored
            path = kube.path_of(kind_of_type(type_), namespace, name)
            try:
                return kube.typed(
                    type_, (await self._ask(Call("PUT", path, kube.AS, kube.body_of(wanted, stored)))).body
                )
            except ConflictError:
                now = await self.find(type_, name, namespace)
                same = now is not None and now.metadata.resource_version == stored.metadata.resource_version
                if same or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def create(self, obj: T) -> T:
        """A new object."""
        kind, namespace = kind_of(obj), obj.metadata.namespace or DEFAULT_NAMESPACE
        obj = with_meta(obj, namespace=namespace if kind.namespaced else "")
        try:
            answer = await self._ask(Call("POST", kube.path_of(kind, namespace), kube.AS, encode(obj)))
        except AlreadyExistsError as error:
            raise AlreadyExistsError(f"{subject(obj)} exists already", hint="Change it, or delete it first.") from error
        return kube.typed(type(obj), answer.body)

    async def apply(self, obj: Object) -> tuple[Object, Literal["created", "configured", "unchanged"]]:
        """Declare an object, as `Objects.apply` does."""
        return await applying.apply_to(self, obj, obj.metadata.namespace or DEFAULT_NAMESPACE)

    async def delete(self, type_: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Remove an object; a namespace only when it is empty, as everywhere in korch."""
        found = await self.get(type_, name, namespace)
        if isinstance(found, Namespace):
            await self._check_empty(name)
        try:
            await self._ask(Call("DELETE", kube.path_of(kind_of_type(type_), namespace, name)))
        except NotFoundError:
            return  # it is gone: by this very request, when the answer to it was lost

    async def _check_empty(self, name: str) -> None:
        if name == DEFAULT_NAMESPACE:
            raise ForbiddenError('namespace "default" always exists', hint="Delete what is in it instead.")
        for kind in KINDS:
            found = (await self.list(kind.type, name)).items if kind.namespaced else ()
            if any(kind.key(name, obj.metadata.name) not in given_keys(name) for obj in found):
                hint = f"See `korch get {kind.plural} -n {name}`."
                raise ForbiddenError(f'namespace "{name}" still holds {kind.plural}: delete them first', hint=hint)

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
        namespace = self.access.namespace or DEFAULT_NAMESPACE
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
        self._patience_s = max(self._patience_s, timeout_s)
        return await self._follow(self, workloads, since=since, timeout_s=timeout_s, on_progress=on_progress)

    # Streams

    def logs(self, pod: Any, options: LogOptions) -> AbstractAsyncContextManager[Stream]:
        """What a pod's container prints."""
        from korch.client.streams import log_stream

        return log_stream(self, pod, options)

    def exec(
        self, pod: Any, argv: Sequence[str], *, stdin: bool, pty: tuple[int, int] | None, container: str = ""
    ) -> AbstractAsyncContextManager[Stream]:
        """A command in a pod's container."""
        from korch.client.streams import exec_stream

        return exec_stream(self, pod, argv, stdin=stdin, pty=pty, container=container)

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
        raise kube.beside_the_state(what, self.access.server)

    async def close(self) -> None:
        """Hang up."""
        await self.wire.close()


async def _next(pieces: Any) -> bytes | None:
    try:
        async with asyncio.timeout(_SILENT_S):
            return await anext(pieces, None)
    except TimeoutError:
        return None
