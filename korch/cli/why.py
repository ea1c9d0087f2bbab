"""`korch why`: the scheduler's reasons, as it recorded them on the pods; what reasons of statuses and events mean."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, namespace_option, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from korch.client.base import Client
    from korch.resources.pod import Pod
    from korch.scheduler.decision import Decision, Row


@click.command(
    epilog=examples(
        "korch why deploy/web            # every pod of it: node, score and its parts, refusals",
        "korch why web                   # a deployment or a pod of that name",
        "korch why pod/web-5d4f8-x2x9k -o wide",
        "korch why web -o json",
        "korch why CrashLoopBackOff      # what a reason means that you have read somewhere, and what to do",
    )
)
@click.argument("name", metavar="POD|DEPLOYMENT|REASON")
@namespace_option
@click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml"]), default=None, help="Another form of output."
)
@cluster_options()
def why(name: str, namespace: str, output: str | None) -> None:
    """Show why pods run where they run, or why they cannot; or what a reason means, and what to do.

    Nodes are listed from the best down: scores are points out of 100, the sum of the parts beside them.
    """
    if name[:1].isupper():  # no object may be called like this
        _tell_of_reason(name, output)
        return

    async def show(client: Client) -> None:
        from korch.cli.refs import find_workload_or_pod, pods_of

        target = await find_workload_or_pod(client, name, namespace)
        pods = await pods_of(client, target)
        if output in ("json", "yaml"):
            from korch.cli.output import dump

            click.echo(dump([_as_data(pod) for pod in pods], "json" if output == "json" else "yaml"))
            return
        if not pods:
            click.echo(f"{name} has no pods yet.", err=True)
            return
        click.echo("\n\n".join(pod_reasons(pod, time.time(), details=output == "wide") for pod in pods))

    run(show, need_inventory=False)


def _tell_of_reason(name: str, output: str | None) -> None:
    from korch.cli.reasons import about, told

    if output in ("json", "yaml"):
        from dataclasses import asdict

        from korch.cli.output import dump

        click.echo(dump([asdict(one) for one in about(name)], "json" if output == "json" else "yaml"))
    else:
        click.echo(told(name))


def decision_of(pod: Pod) -> Decision | None:
    """What the scheduler recorded on the pod, or None."""
    from korch.resources.annotations import DECISION
    from korch.scheduler.decision import from_json

    text = pod.metadata.annotations.get(DECISION)
    return from_json(text) if text else None


def pod_reasons(pod: Pod, now: float, *, details: bool = False) -> str:
    """A sentence on where the pod is, or why nowhere, and the table of nodes. `details` says where points come from."""
    decision = decision_of(pod)
    lines = [_sentence(pod, decision, now)]
    if decision is not None:
        lines += decision_table(decision, details=details)
    return "\n".join(lines)


def _sentence(pod: Pod, decision: Decision | None, now: float) -> str:
    from korch.cli.output import clean
    from korch.resources.podstate import unschedulable
    from korch.resources.times import format_age

    name, node = click.style(pod.metadata.name, bold=True), pod.spec.node_name
    if not node:
        reason = unschedulable(pod) or (decision.message if decision is not None else "")
        return (
            f"{name} is pending: {clean(reason) or 'the scheduler has not looked at it yet; `korch sync` does it now'}"
        )
    if decision is None or decision.node != node:
        return f"{name} runs on {node}; there is no record of the scheduler's reasons"
    when = f", placed {format_age(now - decision.decided_at)} ago" if decision.decided_at else ""
    return f"{name} is on {node}{when}: {clean(decision.message)}"


def decision_table(decision: Decision, *, details: bool = False) -> list[str]:
    """A line a node: the winner marked with `*`, refused nodes with their reason."""
    from korch.cli.output import clean, table
    from korch.scheduler.decision import explain

    rows = explain(decision)
    scored = [row for row in rows if row.score is not None]
    parts = list(dict.fromkeys(part.name for row in scored for part in row.parts))
    lines: list[str] = []
    if scored:
        text = table([_cells(row, parts) for row in scored], ("  NODE", "SCORE", *(name.upper() for name in parts)))
        lines += text.splitlines()
    refused = [(f"  {row.node}", row.refusal) for row in rows if row.score is None]
    lines += table(refused, ("  REFUSED", "WHY")).splitlines()
    if details:
        for row in scored:
            lines += [
                f"  {row.node}: {clean(part.name)} {part.points:.1f}, {clean(part.detail)}"
                for part in row.parts
                if part.detail
            ]
    return lines


def _cells(row: Row, parts: Sequence[str]) -> list[str]:
    points = {part.name: part.points for part in row.parts}
    return [
        f"{'*' if row.chosen else ' '} {row.node}",
        f"{row.score:.1f}",
        *(f"{points[name]:.1f}" if name in points else "" for name in parts),
    ]


def _as_data(pod: Pod) -> dict[str, object]:
    import msgspec

    decision = decision_of(pod)
    return {
        "namespace": pod.metadata.namespace,
        "pod": pod.metadata.name,
        "node": pod.spec.node_name or None,
        "decision": None if decision is None else msgspec.to_builtins(decision),
    }
