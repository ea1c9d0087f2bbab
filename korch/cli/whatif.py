"""`korch whatif`: the same scheduler on live data, asked about replicas that are not there and nodes that are lost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run
from korch.errors import InvalidError, RolloutFailedError

if TYPE_CHECKING:
    from korch.client.base import Client, NodeSeen
    from korch.resources.node import Node, NodeLoad
    from korch.resources.pod import Pod
    from korch.resources.workload import Deployment
    from korch.scheduler.snapshot import Snapshot
    from korch.scheduler.whatif import Outlook


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. No `name` and no wishes: the namespace's only deployment, else a pod that asks for nothing."""

    name: str
    namespace: str
    replicas: int | None
    lose: tuple[str, ...]
    cpu: str
    memory: str
    image: str
    limit: str


@click.command(
    epilog=examples(
        "korch whatif --lose n2                       # where would its pods go?",
        "korch whatif web --replicas 8                # would eight fit, and where?",
        "korch whatif web --replicas 8 --lose n2",
        "korch whatif --replicas 20 --cpu 500m --memory 256Mi",
        f"Exit code: 0 when everything fits, {RolloutFailedError.exit_code} when something does not.",
    )
)
@click.argument("name", metavar="[DEPLOYMENT]", default="")
@click.option("--replicas", type=click.IntRange(0, 100_000), metavar="N", help="So many replicas of it in all.")
@click.option("--lose", multiple=True, metavar="NODE", help="As if this node were lost; may be repeated.")
@click.option("--cpu", default="", metavar="QUANTITY", help="Without a deployment: what a replica asks for, as 250m.")
@click.option("--memory", default="", metavar="QUANTITY", help="Without a deployment: as 64Mi.")
@click.option("--image", default="", metavar="IMAGE", help="Without a deployment: nodes that have it score higher.")
@namespace_option
@limit_option
@cluster_options()
def whatif(
    name: str,
    replicas: int | None,
    lose: tuple[str, ...],
    cpu: str,
    memory: str,
    image: str,
    namespace: str,
    limit: str,
) -> None:
    """Ask where replicas would go, and change nothing.

    The hosts are looked at now; then the scheduler answers as it would for a deploy.
    """
    question = Question(
        name.removeprefix("deploy/").removeprefix("deployment/"), namespace, replicas, lose, cpu, memory, image, limit
    )
    if replicas is None and not lose:
        raise click.UsageError("Ask something: --replicas N, --lose NODE, or both.")
    if question.name and (cpu or memory or image):
        raise click.UsageError("A deployment brings its own --cpu, --memory and --image.")
    text, fits = run(lambda client: _answer(client, question), limit=limit, looks=True)
    click.echo(text)
    if not fits:
        raise SystemExit(RolloutFailedError.exit_code)


async def _answer(client: Client, question: Question) -> tuple[str, bool]:
    from korch.resources.pod import Pod
    from korch.scheduler.whatif import what_if

    seen = await client.survey()
    pods = (await client.list(Pod)).items
    now = time.time()
    snap = await _snapshot(client, seen, pods, now)
    about, wanted, have = await _wanted(client, question, pods)
    allowed = frozenset(await client.node_names()) if question.limit else None
    outlook = what_if(snap, lose=question.lose, pods=wanted, allowed_nodes=allowed, record=1)
    return outlook_text(outlook, question, about=about, have=have), outlook.fits


async def _snapshot(client: Client, seen: tuple[NodeSeen, ...], pods: tuple[Pod, ...], now: float) -> Snapshot:
    """The cluster as just seen; nodes that were not asked, or did not answer, as stored."""
    from korch.resources.blame import distrust
    from korch.resources.node import Node, NodeLoad
    from korch.resources.workload import ReplicaSet
    from korch.scheduler.snapshot import snapshot

    nodes: dict[str, Node] = {node.metadata.name: node for node in (await client.list(Node)).items}
    loads: dict[str, NodeLoad] = {load.metadata.name: load for load in (await client.list(NodeLoad)).items}
    for one in seen:
        name = one.node.metadata.name
        nodes[name] = one.node if one.error is None else _not_ready(one)
        if one.error is None and one.load is not None:
            loads[name] = one.load
    failures = distrust(nodes.values(), (await client.list(ReplicaSet)).items, now)
    return snapshot(tuple(nodes.values()), loads, pods, now=now, failures=failures)


def _not_ready(seen: NodeSeen) -> Node:
    """The node with the state that this look brought, which the store may not have yet."""
    from msgspec.structs import replace

    from korch.resources.meta import Condition

    assert seen.error is not None
    others = tuple(c for c in seen.node.status.conditions if c.type != "Ready")
    state = Condition(type="Ready", status="False", reason=seen.error.reason, message=str(seen.error))
    return replace(seen.node, status=replace(seen.node.status, conditions=(*others, state)))


async def _wanted(client: Client, question: Question, pods: tuple[Pod, ...]) -> tuple[str, tuple[Pod, ...], int]:
    """What the answer is about, the pods to place, and how many stand already."""
    from korch.resources.workload import Deployment
    from korch.scheduler.whatif import copies

    if question.replicas is None:
        return "", (), 0
    if question.name:
        deployment: Deployment | None = await client.get(Deployment, question.name, question.namespace)
    else:
        all_of = (await client.list(Deployment, question.namespace)).items
        plain = not (question.cpu or question.memory or question.image)
        deployment = all_of[0] if plain and len(all_of) == 1 else None
    if deployment is None:
        asks = ", ".join(
            filter(None, (question.cpu and f"cpu {question.cpu}", question.memory and f"memory {question.memory}"))
        )
        return f"a pod that asks for {asks or 'nothing'}", copies(_bare_pod(question), question.replicas), 0
    pattern, have = await _pattern(client, deployment, pods)
    return f"deployment {deployment.metadata.name}", copies(pattern, max(0, question.replicas - have)), have


async def _pattern(client: Client, deployment: Deployment, pods: tuple[Pod, ...]) -> tuple[Pod, int]:
    """A pod of the deployment to make copies of, and how many of its pods stand."""
    from korch.cli.refs import pods_of
    from korch.resources.meta import ObjectMeta
    from korch.resources.pod import Pod
    from korch.resources.podstate import is_counted

    mine = [pod for pod in await pods_of(client, deployment) if is_counted(pod)]
    template = deployment.spec.template
    newest = max(mine, key=lambda pod: pod.metadata.creation_timestamp or "", default=None)
    if newest is not None and newest.spec.containers == template.spec.containers:
        return newest, len(mine)
    meta = ObjectMeta(
        name=deployment.metadata.name,
        namespace=deployment.metadata.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
    )
    return Pod(metadata=meta, spec=template.spec), len(mine)


def _bare_pod(question: Question) -> Pod:
    from korch.resources.meta import ObjectMeta
    from korch.resources.pod import Container, Pod, PodSpec, ResourceRequirements
    from korch.resources.quantity import cpu_millis, memory_bytes

    requests: dict[str, str | int | float] = {}
    for option, text, read in (("cpu", question.cpu, cpu_millis), ("memory", question.memory, memory_bytes)):
        if text:
            try:
                read(text)
            except InvalidError as error:
                raise click.BadParameter(str(error), param_hint=f"--{option}") from error
            requests[option] = text
    container = Container(name="app", image=question.image, resources=ResourceRequirements(requests=requests))
    meta = ObjectMeta(name="whatif", namespace=question.namespace, labels={"app": "whatif"})
    return Pod(metadata=meta, spec=PodSpec(containers=(container,)))


def outlook_text(outlook: Outlook, question: Question, *, about: str = "", have: int = 0) -> str:
    """The answer in words and one table: pods of lost nodes, then how many new replicas each node would get."""
    from korch.cli.output import table

    blocks: list[str] = []
    if question.lose:
        lost = ", ".join(question.lose)
        rows = [(d.name, d.node or "nowhere", "" if d.node else d.message) for d in outlook.moved]
        blocks.append(
            f"Without {lost}: "
            + (
                f"{len(rows)} pod(s) would move\n{_indented(table(rows, ('POD', 'TO', 'WHY')))}"
                if rows
                else "no pod would have to move"
            )
        )
    if question.replicas is not None:
        blocks.append(_added_text(outlook, question.replicas, about, have))
    homeless = [d for d in (*outlook.moved, *outlook.added) if d.node is None]
    blocks.append(f"{len(homeless)} pod(s) would stay pending." if homeless else "Everything fits.")
    return "\n\n".join(blocks)


def _added_text(outlook: Outlook, replicas: int, about: str, have: int) -> str:
    from korch.cli.output import table

    if not outlook.added:
        stand = f"{have} stand already" if have == replicas else f"{have} stand, {have - replicas} would go"
        return f"{replicas} replica(s) of {about}: {stand}"
    counts = Counter(d.node for d in outlook.added if d.node)
    already = f" ({have} stand, {len(outlook.added)} new)" if have else ""
    lines = [f"{replicas} replica(s) of {about}{already}"]
    if counts:
        rows = [(node, count) for count, node in sorted((-count, node) for node, count in counts.items())]
        lines.append(_indented(table([(node, -count) for node, count in rows], ("NODE", "NEW"))))
    reasons = Counter(d.message for d in outlook.added if d.node is None)
    lines += [f"  {count} would stay pending: {message}" for message, count in reasons.most_common()]
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
