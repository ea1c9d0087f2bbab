"""Placing pods: shape by shape, each time on the node with the best score.

One filter pass and one score pass over the nodes serve all pods of a shape. Candidates wait in heaps, one per *cell*
(nodes that share zone and other domains that matter), and the cells in a heap of their own. A placement changes one
node and the cells of its domains, so the next pod costs O(log nodes), not another pass.

Pods that demand more than resources, and larger ones, go first: they have the least choice; small ones fill the gaps.
"""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, nsmallest

from korch.errors import InvalidError
from korch.resources.pod import Pod
from korch.scheduler.board import Board
from korch.scheduler.decision import Decision, Refused, Verdict, reasons, refusal_sentence, tally
from korch.scheduler.demand import Demand
from korch.scheduler.scores import Scorer
from korch.scheduler.shape import Shape
from korch.scheduler.snapshot import PodView, Snapshot, pod_view

FULL_RECORD_UP_TO = 100_000  # pods x nodes of one call: beyond it only winners are recorded by default
FULL_RECORD = 8  # scored nodes per decision


def schedule(
    snap: Snapshot,
    pods: Sequence[Pod | PodView],
    *,
    allowed_nodes: frozenset[str] | None = None,
    record: int | None = None,
) -> list[Decision]:
    """One decision per pod, in the order they were made; the order of `pods` does not matter.

    `record` is how many scored nodes each decision names, with more than one also the refused ones; by default
    `FULL_RECORD`, or the winner alone when the call is large. Pods that fit nowhere are always fully explained.
    """
    views, decisions = _digest(snap, pods)
    if record is None:
        record = FULL_RECORD if len(views) * len(snap.nodes) <= FULL_RECORD_UP_TO else 1
    board = Board(snap, allowed_nodes)
    for shape, members in _in_order(board, views):
        done = 0
        while done < len(members):
            made = list(_Round(board, shape, len(members) - done, record).run(members[done:]))
            decisions += made
            done += len(made)
    return decisions


def _digest(snap: Snapshot, pods: Sequence[Pod | PodView]) -> tuple[list[PodView], list[Decision]]:
    """The pods' views, and decisions for malformed ones, which must not hold up their neighbours."""
    views: list[PodView] = []
    malformed: list[Decision] = []
    for pod in pods:
        if isinstance(pod, PodView):
            views.append(pod)
            continue
        try:
            views.append(pod_view(pod, snap.shapes))
        except InvalidError as error:
            meta, total = pod.metadata, len(snap.nodes)
            text = f"cannot be placed: {error}"
            malformed.append(
                Decision(meta.namespace, meta.name, meta.uid, None, text, decided_at=snap.now, nodes_total=total)
            )
    return views, sorted(malformed, key=lambda d: (d.namespace, d.name, d.uid))


def _in_order(board: Board, views: Sequence[PodView]) -> list[tuple[Shape, list[PodView]]]:
    """Pods by shape: those that need another shape's pods nearby last, else picky before easy, large before small."""
    groups: dict[Shape, list[PodView]] = {}
    for view in views:
        groups.setdefault(view.shape, []).append(view)
    for members in groups.values():
        members.sort(key=lambda v: (v.created, v.namespace, v.name, v.uid))
    cpu = max(1, sum(n.cpu_millis for n in board.snapshot.nodes))
    memory = max(1, sum(n.memory_bytes for n in board.snapshot.nodes))

    def rank(item: tuple[Shape, list[PodView]]) -> tuple[bool, bool, float, str, str, str, str]:
        shape, first = item[0], item[1][0]
        follows = any(not term.matches(shape) for term in shape.near)
        size = max(shape.cpu_millis / cpu, shape.memory_bytes / memory)
        return (follows, not shape.is_picky, -size, first.created, first.namespace, first.name, first.uid)

    return sorted(groups.items(), key=rank)


class _Cell:
    """Candidates that share all domains that matter, best first. `stamp` tells valid entries of the outer heap."""

    __slots__ = ("heap", "stamp")

    def __init__(self, heap: list[tuple[float, int]]) -> None:
        self.heap, self.stamp = heap, 0


class _Round:
    """Places pods of one shape until the demand has to be drawn up anew (`Demand.outdated`)."""

    def __init__(self, board: Board, shape: Shape, batch: int, record: int) -> None:
        self.board, self.shape, self.record = board, shape, record
        self.demand = Demand(board, shape)
        candidates = self.demand.candidates()
        self.scorer = Scorer(self.demand, candidates, batch)
        self.cells = self._cells(candidates)
        self.outer: list[tuple[float, int, int, int]] = []  # (-score, node, cell, stamp)
        self.parked_cells: list[int] = []
        self.parked_nodes: list[tuple[float, int]] = []
        for number in range(len(self.cells)):
            self._offer(number)

    def _cells(self, candidates: list[int]) -> list[_Cell]:
        """Group by the domains that matter; none of them matters to most pods: then there is one cell."""
        columns = self.scorer.cell_keys
        if len(columns) == 1:
            self.keys: Sequence[object] = columns[0]
        else:
            self.keys = tuple(zip(*columns, strict=True)) if columns else (None,) * self.board.size
        groups: dict[object, list[tuple[float, int]]] = {}
        for i, score in zip(candidates, self.scorer.own_scores(candidates), strict=True):
            key = self.keys[i]
            if key in groups:
                groups[key].append((-score, i))
            else:
                groups[key] = [(-score, i)]
        for heap in groups.values():
            heapify(heap)
        self.cell_of = {key: number for number, key in enumerate(groups)}
        return [_Cell(heap) for heap in groups.values()]

    def _number(self, i: int) -> int:
        return self.cell_of[self.keys[i]]

    def _offer(self, number: int) -> None:
        """Enter the cell's best node into the outer heap; older entries of the cell become void."""
        cell = self.cells[number]
        cell.stamp += 1
        if cell.heap:
            negative, i = cell.heap[0]
            heappush(self.outer, (negative - self.scorer.cell_score(i), i, number, cell.stamp))

    def run(self, pods: Sequence[PodView]) -> Iterator[Decision]:
        """Decisions for the pods in order; stops early when the demand is outdated."""
        for number, pod in enumerate(pods):
            found = self._best()
            if found is None:
                yield from self._pending(pods[number:])
                return
            i, score = found
            yield self._placement(pod, i, score)
            self._place(i)
            if self.demand.outdated:
                return

    def _best(self) -> tuple[int, float] | None:
        """The best node that can take the pod now, and its score."""
        demand, outer = self.demand, self.outer
        while outer:
            negative, i, number, stamp = outer[0]
            cell = self.cells[number]
            if stamp != cell.stamp:
                heappop(outer)
            elif not demand.keeps_apart(i):
                heappop(outer)  # a pod of this very round took the domain: the cell is out for good
            elif not demand.spreads_well(i):
                heappop(outer)
                self._park(number, i)
            elif (now := cell.heap[0][0] - self.scorer.cell_score(i)) != negative:
                heappop(outer)
                heappush(outer, (now, i, number, stamp))
            else:
                return i, -negative
        return None

    def _park(self, number: int, i: int) -> None:
        """Set aside until the emptiest domain has more pods: the whole cell, or one node by itself."""
        if any(not skew.fits(i) for skew in self.demand.hard_skews if not skew.unique):
            self.parked_cells.append(number)
            return
        self.parked_nodes.append(heappop(self.cells[number].heap))
        self._offer(number)

    def _place(self, i: int) -> None:
        demand, scorer = self.demand, self.scorer
        bars = [skew.minimum for skew in demand.hard_skews]
        self.board.place(self.shape, i)
        demand.placed(i)
        scorer.placed(i)
        if demand.outdated:
            return
        number = self._number(i)
        heappop(self.cells[number].heap)
        if demand.with_room([i]) and demand.keeps_apart(i):
            heappush(self.cells[number].heap, (-scorer.own_scores([i])[0], i))
        self._offer(number)
        if bars != [skew.minimum for skew in demand.hard_skews]:
            self._unpark()
        if scorer.draws_in:
            for other in range(len(self.cells)):
                self._offer(other)

    def _unpark(self) -> None:
        numbers = set(self.parked_cells)
        for entry in self.parked_nodes:
            number = self._number(entry[1])
            heappush(self.cells[number].heap, entry)
            numbers.add(number)
        self.parked_cells, self.parked_nodes = [], []
        for number in sorted(numbers):
            self._offer(number)

    def _placement(self, pod: PodView, i: int, score: float) -> Decision:
        node = self.board.snapshot.nodes[i].name
        if self.record <= 1:
            verdicts = (Verdict(node, None, score, self.scorer.parts(i)),) if self.record else ()
            return self._decision(pod, f"placed on {node} (score {score:.0f})", verdicts, (), node, score)
        refusals = self._refusals()
        refused, total = tally(refusals), self.board.size
        message = f"placed on {node} (score {score:.0f}): {total - len(refusals)}/{total} nodes fit"
        if refused:
            message += f", {reasons(refused)}"
        return self._decision(pod, message, (*self._scored(self.record), *refusals), refused, node, score)

    def _scored(self, count: int) -> tuple[Verdict, ...]:
        """The best nodes that can take the pod now."""
        demand, scorer = self.demand, self.scorer
        entries = (
            (negative - scorer.cell_score(i), i)
            for cell in self.cells
            for negative, i in cell.heap
            if demand.keeps_apart(i) and demand.spreads_well(i)
        )
        nodes = self.board.snapshot.nodes
        return tuple(Verdict(nodes[i].name, None, -n, scorer.parts(i)) for n, i in nsmallest(count, entries))

    def _refusals(self) -> tuple[Verdict, ...]:
        """Every node that cannot take the pod now, with the reason."""
        found = []
        for i, node in enumerate(self.board.snapshot.nodes):
            if why := self.demand.refusal(i):
                found.append(Verdict(node.name, why))
        return tuple(found)

    def _pending(self, pods: Sequence[PodView]) -> Iterator[Decision]:
        """The same answer for all of them: what one cannot have, its like cannot have either."""
        refusals = self._refusals()
        refused = tally(refusals)
        message = refusal_sentence(self.board.size, refused)
        for pod in pods:
            yield self._decision(pod, message, refusals, refused)

    def _decision(
        self,
        pod: PodView,
        message: str,
        verdicts: tuple[Verdict, ...],
        refused: tuple[Refused, ...],
        node: str | None = None,
        score: float = 0.0,
    ) -> Decision:
        return Decision(
            namespace=pod.namespace,
            name=pod.name,
            uid=pod.uid,
            node=node,
            message=message,
            score=score,
            decided_at=self.board.snapshot.now,
            nodes_total=self.board.size,
            verdicts=verdicts,
            refused=refused,
        )
