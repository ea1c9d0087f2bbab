"""`korch rebalance`: move replicas from loaded hosts to less loaded ones, new before old."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, run, timeout_option

if TYPE_CHECKING:
    from korch.client.base import Client
    from korch.controllers.disruption import World
    from korch.scheduler.rebalance import Shift


@click.command(
    epilog=examples(
        "korch rebalance --plan           # what would move, and why; nothing is done",
        "korch rebalance                  # move it, one replica of an app at a time",
        "korch rebalance --max-moves 1 --min-gain 15",
        "korch rebalance --auto           # from now on a running master does it every minute, two moves at a time",
    )
)
@click.option("--plan", "only_plan", is_flag=True, help="Show the moves, and do nothing.")
@click.option("--max-moves", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="At most so many.")
@click.option(
    "--min-gain",
    type=click.FloatRange(1, 100),
    default=None,
    metavar="POINTS",
    help="Move a replica only if its score (0 to 100) grows by so much; default 5.",
)
@click.option("--auto/--no-auto", "auto", default=None, help="Have a running master do it by itself, or no more.")
@timeout_option
@limit_option
@cluster_options()
def rebalance(
    only_plan: bool, max_moves: int, min_gain: float | None, auto: bool | None, timeout_s: int, limit: str
) -> None:
    """Move replicas to hosts where the scheduler would rather have them now.

    Hosts and pods are measured first. A replica goes when its successor elsewhere is available and its budgets allow
    it. Apps with named volumes or host paths, apps that never run twice and apps that are being rolled out stay where
    they are.
    """

    if auto is not None:
        if only_plan:
            raise click.UsageError("--auto and --plan do not go together: a plan changes nothing")
        run(lambda client: client.set_auto_rebalance(auto), need_inventory=False)
        click.echo(
            "A running master levels the load from now on." if auto else "Nothing is levelled by itself any more."
        )
        return

    async def act(client: Client) -> bool:
        from korch.scheduler.rebalance import MIN_GAIN

        shifts, world = await _plan(client, max_moves, MIN_GAIN if min_gain is None else min_gain)
        if not shifts:
            click.echo("Nothing to move: every replica stands well enough where it is.")
            return True
        click.echo(plan_text(shifts))
        return only_plan or await _carry_out(client, shifts, world, timeout_s)

    if not run(act, limit=limit):
        raise SystemExit(9)


async def _plan(client: Client, max_moves: int, min_gain: float) -> tuple[tuple[Shift, ...], World]:
    """Measured now; hosts that do not answer neither give nor take."""
    from korch.controllers.disruption import world_of
    from korch.controllers.rebalance import plan_rebalance, usage_by_pod

    seen = [one for one in await client.survey() if one.error is None and one.load is not None]
    nodes = [one.node for one in seen]
    loads = {one.node.metadata.name: one.load for one in seen if one.load is not None}
    usage = usage_by_pod(await client.usage())
    world = await world_of(client)
    now = time.time()
    return plan_rebalance(world, nodes, loads, now, usage=usage, max_moves=max_moves, min_gain=min_gain), world


def plan_text(shifts: Sequence[Shift]) -> str:
    """The moves, the best first, each with its reason below."""
    from korch.cli.output import table

    rows = [(one.name, one.source, one.target, f"{one.before:.0f} -> {one.after:.0f}", one.why) for one in shifts]
    return table(rows, ("POD", "FROM", "TO", "SCORE", "WHY"))


async def _carry_out(client: Client, shifts: Sequence[Shift], world: World, timeout_s: int) -> bool:
    import contextlib

    from korch.cli.node_drain import workloads_of
    from korch.cli.rollout_view import converge
    from korch.controllers.disruption import evict
    from korch.controllers.rebalance import REBALANCE
    from korch.errors import ConflictError, NotFoundError

    pods = {pod.metadata.uid: pod for pod in world.pods}
    chosen = [pods[one.uid] for one in shifts]
    for pod in chosen:
        with contextlib.suppress(NotFoundError, ConflictError):  # it went by itself
            await evict(client, pod, REBALANCE, stop_first=False)
    generations = {
        (found.metadata.namespace, found.metadata.name): found.metadata.generation for found in world.deployments
    }
    workloads = workloads_of(chosen)
    since = {one: generations.get((one.namespace, one.name), 0) for one in workloads}
    return await converge(client, workloads, since, timeout_s)
