"""Following from another machine what a master does: the same judgement as of a run here, on what the API tells."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from korch.client.base import Outcome, Progress, Workload
from korch.client.http import HttpClient
from korch.master.background import background
from korch.master.judging import Judged, judge, next_change, outcomes
from korch.master.progress import Reporter
from korch.objects.objects import Objects
from korch.objects.values import Change, ObjectList
from korch.objects.view import View
from korch.resources.kinds import kind_of_type
from korch.resources.meta import Object
from korch.resources.node import Node
from korch.resources.pod import Pod
from korch.resources.podstate import workload_name
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

T = TypeVar("T", bound=Object)
KINDS = (Deployment, ReplicaSet, DaemonSet, Pod, Node)
LOOK_S = 1.0
STUCK_S, ROLLBACK_S = 5.0, 90.0  # as in a run beside the state file (`oneshot.py`)


async def follow(
    client: HttpClient,
    workloads: Sequence[Workload],
    *,
    since: Mapping[Workload, int],
    timeout_s: float,
    on_progress: Callable[[Progress], None],
) -> tuple[Outcome, ...]:
    """An outcome for each workload, in order, once a master has made it true or only a person could do more."""
    return await _Following(client, workloads, since, on_progress).run(timeout_s)


class _Part:
    """What the followed workloads are made of: of one namespace, if they are all in it, as more may not be allowed.

    Nodes are read for daemon sets only, whose pods are counted by them.
    """

    def __init__(self, client: HttpClient, workloads: Sequence[Workload], *, nodes: bool) -> None:
        spaces = {workload.namespace for workload in workloads}
        self._client, self._space, self._nodes = client, spaces.pop() if len(spaces) == 1 else "", nodes

    async def list(self, type_: type[T]) -> ObjectList[T]:
        """All of one kind."""
        if type_ is Node and not self._nodes:
            return ObjectList((), 0)
        return await self._client.list(type_, self._space if kind_of_type(type_).namespaced else "")

    @contextlib.asynccontextmanager
    async def watch(self, type_: type[T], *, after: int):  # type: ignore[no-untyped-def]
        """What changes."""
        if type_ is Node and not self._nodes:
            await asyncio.Event().wait()
        space = self._space if kind_of_type(type_).namespaced else ""
        async with self._client.watch(type_, space, after=after) as changes:
            yield changes


class _Following:
    def __init__(
        self,
        client: HttpClient,
        workloads: Sequence[Workload],
        since: Mapping[Workload, int],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._client, self._workloads, self._since = client, tuple(workloads), since
        self._reporter = Reporter(on_progress)
        self._changed = asyncio.Event()
        self._moved_at = 0.0  # when something of these workloads changed or was under way, on the event loop's clock

    async def run(self, timeout_s: float) -> tuple[Outcome, ...]:
        """Look at every change, until nothing more is to be waited for."""
        loop = asyncio.get_running_loop()
        end, self._moved_at = loop.time() + timeout_s, loop.time()
        part = _Part(self._client, self._workloads, nodes=await self._has_daemons())
        view = View(cast("Objects", part), KINDS)
        view.listen(self._note)
        async with background() as group:
            await view.start(group)
            if leader := (await self._client.info()).lead:
                self._reporter.say(f"following {leader}, which leads now")
            while True:
                judged = judge(view, self._workloads, self._since, frozenset(), time.time())
                if all(found.standing.state in {"done", "failed"} for found in judged):
                    return outcomes(judged, self._reporter.changed)
                if await self._is_stuck_for_good(judged):
                    return outcomes(judged, self._reporter.changed)
                going_back = any(found.standing.state == "going" and found.may_go_back for found in judged)
                if loop.time() > end + (ROLLBACK_S if going_back else 0.0):
                    return outcomes(judged, self._reporter.changed, late_s=timeout_s)
                await next_change(self._changed, LOOK_S)

    async def _has_daemons(self) -> bool:
        return any([await self._client.find(DaemonSet, one.name, one.namespace) for one in self._workloads])

    async def _is_stuck_for_good(self, judged: Sequence[Judged]) -> bool:
        """Whether a master has had its say, and only a person could do more."""
        now = asyncio.get_running_loop().time()
        if any(found.standing.state == "going" for found in judged):
            self._moved_at = now
        return now - self._moved_at >= STUCK_S and (await self._client.info()).has_master

    def _note(self, change: Change[Object]) -> None:
        self._changed.set()
        obj = change.object
        if isinstance(obj, Node) or Workload(obj.metadata.namespace, workload_name(obj)) not in self._workloads:
            return
        self._moved_at = asyncio.get_running_loop().time()
        if isinstance(obj, Pod):
            self._reporter.pod(change)
