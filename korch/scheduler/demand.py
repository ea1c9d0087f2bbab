"""One shape's demands on the board: which nodes can take one more pod of it right now, and why the others cannot.

`candidates` is the fast pass over all nodes; `refusal` asks the same questions of one node, slowly and in words. The
tests hold them against each other.
"""

from collections.abc import Iterable

from korch.resources.quantity import format_cpu, human_bytes
from korch.resources.selectors import selector_text
from korch.scheduler.board import Board
from korch.scheduler.decision import Refusal
from korch.scheduler.filters import disk_floor
from korch.scheduler.shape import Shape, Spread, Term
from korch.scheduler.snapshot import HOSTNAME, ZONE, port_taken


class Tally:
    """Pods that a term means, per domain of its node label. `own`: pods of the shape itself are among them."""

    __slots__ = ("column", "counts", "own", "term", "unique")

    def __init__(self, board: Board, shape: Shape, term: Term, *, leaving: bool = True) -> None:
        self.term = term
        self.column = board.snapshot.domains(term.topology_key)
        self.own = term.matches(shape)
        self.unique = board.is_unique(term.topology_key)
        self.counts: dict[str, int] = {}
        for other in board.meant_by(term):
            self._count(board.pods_of(other), 1)
            if not leaving:
                self._count(board.snapshot.leaving_by_shape.get(other, {}).items(), -1)

    def _count(self, pods: Iterable[tuple[int, int]], sign: int) -> None:
        for i, count in pods:
            domain = self.column[i]
            if domain is not None:
                self.counts[domain] = self.counts.get(domain, 0) + sign * count

    def at(self, i: int) -> int:
        """Matching pods in the domain of node `i`; 0 for a node without the label."""
        return self.counts.get(self.column[i] or "", 0)

    def add(self, i: int) -> None:
        """One more matching pod on node `i`."""
        domain = self.column[i]
        if domain is not None:
            self.counts[domain] = self.counts.get(domain, 0) + 1


class Skew(Tally):
    """A spread constraint: the emptiest domain sets the bar.

    Domains count while a node there could take the pod but for room: a halted or cordoned zone does not hold up others.
    """

    __slots__ = ("_pods_of", "hard", "max_skew", "minimum")

    def __init__(self, board: Board, shape: Shape, spread: Spread, eligible: Iterable[int]) -> None:
        super().__init__(board, shape, spread.term, leaving=False)
        self.max_skew, self.hard = spread.max_skew, spread.hard
        domains = {self.column[i] for i in eligible} - {None}
        self._pods_of: dict[int, set[str]] = {}  # count -> domains that have it
        for domain in domains:
            if domain is not None:
                self._pods_of.setdefault(self.counts.get(domain, 0), set()).add(domain)
        self.minimum = min(self._pods_of, default=0)

    def fits(self, i: int) -> bool:
        """Whether one more pod on node `i` keeps within the skew."""
        domain = self.column[i]
        return domain is not None and self.counts.get(domain, 0) + self.own - self.minimum <= self.max_skew

    def add(self, i: int) -> None:
        """One more matching pod on node `i`; `minimum` may rise."""
        domain = self.column[i]
        if domain is None:
            return
        before = self.counts.get(domain, 0)
        self.counts[domain] = before + 1
        group = self._pods_of.get(before, set())
        if domain in group:
            group.remove(domain)
            self._pods_of.setdefault(before + 1, set()).add(domain)
            if not group:
                del self._pods_of[before]
                if before == self.minimum:
                    self.minimum = before + 1


class Demand:
    """Filters of one shape on the board as it is. Call `placed` after each pod; when `outdated`, draw up a new one."""

    def __init__(self, board: Board, shape: Shape) -> None:
        self.board, self.shape = board, shape
        self.standing = board.standing(shape.rules)
        self.pins = [(volume, holders) for volume in shape.volumes if (holders := board.holders(volume))]
        self.apart = [Tally(board, shape, term) for term in shape.apart]
        self.banned = self._banned_by_others()
        self.near = [Tally(board, shape, term) for term in shape.near]
        # The first of a group whose members want to be near each other has nobody to be near to.
        self.starts_group = bool(self.near) and all(t.own and not any(t.counts.values()) for t in self.near)
        eligible = self.standing.ok
        for column in [board.snapshot.domains(s.term.topology_key) for s in shape.spreads if s.hard]:
            eligible = [i for i in eligible if column[i] is not None]
        self.skews = [Skew(board, shape, spread, eligible) for spread in shape.spreads]
        self.hard_skews = [skew for skew in self.skews if skew.hard]
        sized = board.knows_size(shape)
        self.cramped = frozenset(i for i in self.standing.ok if self._image_refusal(i)) if sized else frozenset()
        self.outdated = False

    def _banned_by_others(self) -> list[tuple[Term, tuple[str | None, ...], set[str]]]:
        """Domains that pods on nodes keep this shape out of; its own anti-affinity is counted in `apart`."""
        found: dict[Term, set[str]] = {}
        own = {term for term in self.shape.apart if term.matches(self.shape)}
        for other, term in self.board.keeping_away(self.shape):
            if other is self.shape and term in own:
                continue
            column = self.board.snapshot.domains(term.topology_key)
            domains = {column[i] for i, count in self.board.pods_of(other) if count}
            found.setdefault(term, set()).update(d for d in domains if d is not None)
        return [(term, self.board.snapshot.domains(term.topology_key), bad) for term, bad in found.items()]

    def candidates(self) -> list[int]:
        """Nodes that can take one more pod; hard spread is left to `spreads_well`, as it changes with every pod."""
        ok = [i for i in self.standing.ok if i not in self.cramped] if self.cramped else self.standing.ok
        for _, holders in self.pins:
            ok = [i for i in ok if i in holders]
        for _, column, bad in self.banned:
            ok = [i for i in ok if column[i] not in bad]
        for tally in self.apart:
            column, bad = tally.column, {domain for domain, count in tally.counts.items() if count}
            if bad:
                ok = [i for i in ok if column[i] not in bad]
        for tally in self.near:
            ok = [i for i in ok if tally.column[i] is not None and (self.starts_group or tally.at(i))]
        for skew in self.hard_skews:
            ok = [i for i in ok if skew.column[i] is not None and (skew.own or skew.fits(i))]
        return self.with_room(ok)

    def with_room(self, nodes: list[int]) -> list[int]:
        """Those of the nodes that have a pod slot, CPU, memory and the ports."""
        board, shape = self.board, self.shape
        cpu = shape.cpu_millis or -(2**62)  # who asks for nothing fits even where more than all is promised
        memory = shape.memory_bytes or -(2**62)
        slots, cpu_free, memory_free, memory_now = board.slots, board.cpu_free, board.memory_free, board.memory_now
        found = [
            i
            for i in nodes
            if cpu_free[i] >= cpu and memory_free[i] >= memory and memory_now[i] >= memory and slots[i] > 0
        ]
        return [i for i in found if not port_taken(shape, board.ports[i])] if shape.ports else found

    def spreads_well(self, i: int) -> bool:
        """Whether the hard spread constraints allow one more pod on node `i`."""
        return all(skew.fits(i) for skew in self.hard_skews)

    def keeps_apart(self, i: int) -> bool:
        """Whether no pod that this one must keep away from is near node `i`."""
        return not any(tally.at(i) for tally in self.apart)

    def placed(self, i: int) -> None:
        """Take note of a pod of this shape on node `i` (after `Board.place`)."""
        if self.starts_group or any(not self.board_had(volume) for volume in self.shape.volumes):
            self.outdated = True
        for tally in (*self.apart, *self.near, *self.skews):
            if tally.own:
                tally.add(i)

    def board_had(self, volume: str) -> bool:
        """Whether the volume existed anywhere when this demand was drawn up."""
        return any(volume == pinned for pinned, _ in self.pins)

    def refusal(self, i: int) -> Refusal | None:
        """The first reason why node `i` cannot take one more pod, or None."""
        return (
            self.standing.refused.get(i)
            or self._room_refusal(i)
            or self._image_refusal(i)
            or self._volume_refusal(i)
            or self._apart_refusal(i)
            or self._near_refusal(i)
            or self._spread_refusal(i)
        )

    def _room_refusal(self, i: int) -> Refusal | None:
        board, shape = self.board, self.shape
        if board.slots[i] <= 0:
            limit = board.snapshot.nodes[i].max_pods
            return Refusal("Pods", "full (pods)", "full (pods)", f"already holds its {limit} pods")
        if shape.cpu_millis and board.cpu_free[i] < shape.cpu_millis:
            asked, free = format_cpu(shape.cpu_millis), format_cpu(max(0, board.cpu_free[i]))
            return _lack("CPU", "CPU", f"{asked} asked", f"{free} not yet promised to other pods")
        if shape.memory_bytes and board.memory_free[i] < shape.memory_bytes:
            asked, free = human_bytes(shape.memory_bytes), human_bytes(max(0, board.memory_free[i]))
            return _lack("Memory", "memory", f"{asked} asked", f"{free} not yet promised to other pods")
        if shape.memory_bytes and board.memory_now[i] < shape.memory_bytes:
            asked, free = human_bytes(shape.memory_bytes), human_bytes(max(0, board.memory_now[i]))
            return _lack("MemoryNow", "really free memory", f"{asked} asked", f"{free} measured free")
        if taken := port_taken(shape, board.ports[i]):
            port = taken.removesuffix("/TCP")
            return Refusal(
                "Port", f"has port {port} taken", f"have port {port} taken", f"port {port} is taken by a pod"
            )
        return None

    def _image_refusal(self, i: int) -> Refusal | None:
        """No pull that does not fit: it would fill the disk under everything else there."""
        node, needed = self.board.snapshot.nodes[i], self.board.bytes_to_pull(self.shape, i)
        room = node.disk_free_bytes - disk_floor(node)
        if not needed or not node.disk_total_bytes or needed <= room:
            return None
        asked, free = human_bytes(needed), human_bytes(max(0, int(room)))
        return _lack("ImageDisk", "disk for the image", f"{asked} unpacked", f"{free} may be used")

    def _volume_refusal(self, i: int) -> Refusal | None:
        for volume, holders in self.pins:
            if i not in holders:
                name = volume.partition("/")[2]
                homes = ", ".join(self.board.snapshot.nodes[j].name for j in sorted(holders)[:3])
                one, many = f"without volume {name} (it is on {homes})", f"without volume {name} (it is on {homes})"
                return Refusal("Volume", one, many, f"volume {name} is on {homes}")
        return None

    def _apart_refusal(self, i: int) -> Refusal | None:
        for tally in self.apart:
            if tally.at(i):
                return _too_near(tally.term, "it must keep away from")
        for term, column, bad in self.banned:
            if column[i] in bad:
                return _too_near(term, "that keeps it away", named=False)
        return None

    def _near_refusal(self, i: int) -> Refusal | None:
        for tally in self.near:
            if tally.column[i] is None:
                return _no_label(tally.term.topology_key)
            if not self.starts_group and not tally.at(i):
                pods = f"pods {selector_text(tally.term.selector)}"
                where = _where(tally.term.topology_key)
                one, many = f"not near {pods} ({where})", f"not near {pods} ({where})"
                return Refusal("Affinity", one, many, f"the pod must be near {pods}; none is on the same {where}")
        return None

    def _spread_refusal(self, i: int) -> Refusal | None:
        for skew in self.hard_skews:
            if skew.column[i] is None:
                return _no_label(skew.term.topology_key)
            if not skew.fits(i):
                where = _where(skew.term.topology_key)
                one, many = f"would spread unevenly over {where}s", f"would spread unevenly over {where}s"
                there = f"{skew.at(i)} such pods in {where} {skew.column[i]}, {skew.minimum} in the emptiest"
                detail = f"{there}, a skew of {skew.max_skew} is allowed"
                return Refusal("Spread", one, many, detail)
        return None


def _lack(category: str, what: str, asked: str, has: str) -> Refusal:
    return Refusal(category, f"lacks {what} ({asked})", f"lack {what} ({asked})", f"lacks {what}: {asked}, {has}")


def _too_near(term: Term, why: str, *, named: bool = True) -> Refusal:
    pods = f"a pod {selector_text(term.selector)}" if named else "a pod"
    where = _where(term.topology_key)
    there = "" if where == "node" else f" in the same {where}"
    one, many = f"already has {pods}{there} {why}", f"already have {pods}{there} {why}"
    return Refusal("AntiAffinity", one, many, one)


def _no_label(topology_key: str) -> Refusal:
    one, many = f"has no label {topology_key}", f"have no label {topology_key}"
    return Refusal("TopologyLabel", one, many, one)


def _where(topology_key: str) -> str:
    return {HOSTNAME: "node", ZONE: "zone"}.get(topology_key, topology_key)
