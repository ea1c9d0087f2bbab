"""What the scheduler answers: a node or none, with the reasons, fit to be kept on the pod and shown to people."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from korch.errors import InvalidError
from korch.resources.annotations import DECISION

NAMES_KEPT = 20  # nodes named per refusal
VERDICTS_KEPT = 8  # scored nodes kept in the annotation
REASONS_TOLD = 6  # in one sentence
BYTES_KEPT = 12_000  # of the annotation; Kubernetes allows 256 KiB for all annotations of an object


class Part(msgspec.Struct, frozen=True):
    """One part of a score: `points` of the node's 0..100, and where they come from."""

    name: str
    points: float
    detail: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Why a node does not take the pod. `one` and `many` continue "1 ..." and "2 ...", `detail` is about that node."""

    category: str
    one: str
    many: str
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """What was said of one node: a refusal, or a score with its parts."""

    node: str
    refusal: Refusal | None = None
    score: float = 0.0
    parts: tuple[Part, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """How many nodes were refused for one reason; up to `NAMES_KEPT` of them by name."""

    category: str
    phrase: str
    count: int
    nodes: tuple[str, ...]


class Decision(msgspec.Struct, frozen=True):
    """Where one pod goes (`node` None: nowhere now), in one sentence and in detail. `verdicts`: best node first.

    `refused` is empty, and `verdicts` holds the winner only, when the caller asked for no more record than that.
    """

    namespace: str
    name: str
    uid: str
    node: str | None
    message: str
    score: float = 0.0
    decided_at: float = 0.0
    nodes_total: int = 0
    verdicts: tuple[Verdict, ...] = ()
    refused: tuple[Refused, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """One line of `korch why`: a node that was scored, or one that was refused."""

    node: str
    chosen: bool
    score: float | None
    refusal: str
    parts: tuple[Part, ...] = ()


def tally(verdicts: Iterable[Verdict]) -> tuple[Refused, ...]:
    """Refusals counted by reason, the most frequent first."""
    groups: dict[tuple[str, str], list[tuple[str, Refusal]]] = {}
    for verdict in verdicts:
        if verdict.refusal:
            groups.setdefault((verdict.refusal.category, verdict.refusal.many), []).append(
                (verdict.node, verdict.refusal)
            )
    found = []
    for (category, many), members in groups.items():
        phrase = members[0][1].one if len(members) == 1 else many
        found.append(Refused(category, phrase, len(members), tuple(sorted(n for n, _ in members)[:NAMES_KEPT])))
    return tuple(sorted(found, key=lambda r: (-r.count, r.category, r.phrase)))


def refusal_sentence(nodes_total: int, refused: Iterable[Refused]) -> str:
    """`0/3 nodes: 2 lack memory (512Mi asked), 1 cordoned`."""
    return f"0/{nodes_total} nodes: {reasons(refused) or 'the cluster has no nodes'}"


def reasons(refused: Iterable[Refused]) -> str:
    """`2 lack memory (512Mi asked), 1 cordoned`; the most frequent ones in words, the rest as a number."""
    counted = tuple(refused)
    told = ", ".join(f"{r.count} {r.phrase}" for r in counted[:REASONS_TOLD])
    rest = sum(r.count for r in counted[REASONS_TOLD:])
    return f"{told}, {rest} for other reasons" if rest else told


def explain(decision: Decision) -> tuple[Row, ...]:
    """The rows of the table that `korch why` prints: scored nodes from the best down, then refused ones by name."""
    scored = [v for v in decision.verdicts if v.refusal is None]
    rows = [Row(v.node, v.node == decision.node, v.score, "", v.parts) for v in scored]
    detailed = {v.node: v.refusal.detail for v in decision.verdicts if v.refusal}
    named = {node: r.phrase for r in decision.refused for node in r.nodes}
    rows += [Row(node, False, None, detailed.get(node) or named[node]) for node in sorted({*detailed, *named})]
    unnamed = [(r.count - len(r.nodes), r.phrase) for r in decision.refused if r.count > len(r.nodes)]
    return (*rows, *(Row(f"({count} more)", False, None, phrase) for count, phrase in unnamed))


def to_json(decision: Decision) -> str:
    """Compact text for the pod's annotation, at most `BYTES_KEPT` long: winner, best nodes, counted refusals."""
    scored = tuple(v for v in decision.verdicts if v.refusal is None)[:VERDICTS_KEPT]
    kept = replace(decision, verdicts=scored)
    for trim in (
        kept,
        _without_details(kept),
        replace(_without_details(kept), verdicts=_without_details(kept).verdicts[:1]),
    ):
        text = msgspec.json.encode(trim).decode()
        if len(text.encode()) <= BYTES_KEPT:
            return text
    return msgspec.json.encode(replace(kept, verdicts=(), refused=(), message=kept.message[:500])).decode()


def _without_details(decision: Decision) -> Decision:
    verdicts = tuple(
        replace(v, parts=tuple(replace(p, detail="") for p in v.parts)) if i else v
        for i, v in enumerate(decision.verdicts)
    )
    return replace(decision, verdicts=verdicts, refused=tuple(replace(r, nodes=r.nodes[:5]) for r in decision.refused))


def from_json(text: str | bytes) -> Decision:
    """The decision kept in an annotation; `InvalidError` when the text is not one."""
    try:
        data: Any = msgspec.json.decode(text, type=Decision)
    except msgspec.MsgspecError as error:
        raise InvalidError(f"annotation {DECISION}: {error}") from error
    result: Decision = data
    return result
