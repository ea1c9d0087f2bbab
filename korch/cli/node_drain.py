"""`korch node cordon|uncordon|drain`: keep pods away from a node, and move those that are there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, report_and_fail, run
from korch.errors import ForbiddenError, KorchError, RolloutFailedError

if TYPE_CHECKING:
    from korch.client.base import Client, Outcome, Workload
    from korch.controllers.disruption import World
    from korch.controllers.drain import DrainPlan
    from korch.resources.node import Node
    from korch.resources.pod import Pod

_LOOK_S = 1.0


@click.command(epilog=examples("korch node cordon n1 n2"))
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@cluster_options()
def cordon(names: tuple[str, ...]) -> None:
    """Place no new pods on these nodes; those that run there go on."""

    async def act(client: Client) -> None:
        await _each(names, lambda name: _close(client, name))

    run(act, need_inventory=False)


@click.command(epilog=examples("korch node uncordon n1 n2    # also takes back what is left of a drain"))
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@cluster_options()
def uncordon(names: tuple[str, ...]) -> None:
    """Let pods be placed on these nodes again.

    Pods that a drain has not moved yet stay there.
    """

    async def act(client: Client) -> None:
        await _each(names, lambda name: _open(client, name))

    run(act, need_inventory=False)


async def _each(names: Sequence[str], act: Callable[[str], Awaitable[None]]) -> None:
    """For every name once; the errors at the end."""
    errors: list[Exception] = []
    for name in dict.fromkeys(names):
        try:
            await act(name)
        except KorchError as error:
            errors.append(error)
    if errors:
        report_and_fail(errors)


async def _close(client: Client, name: str) -> None:
    changed = await _set_unschedulable(client, name, True)
    click.echo(f"node/{name} {'cordoned' if changed else 'is cordoned already'}")


async def _open(client: Client, name: str) -> None:
    from korch.controllers.disruption import keep
    from korch.controllers.drain import DRAIN
    from korch.resources.leaving import is_leaving
    from korch.resources.pod import Pod

    changed = await _set_unschedulable(client, name, False)
    click.echo(f"node/{name} {'uncordoned' if changed else 'is uncordoned already'}")
    there = [pod for pod in (await client.list(Pod)).items if pod.spec.node_name == name and is_leaving(pod)]
    kept = [pod for pod in there if not is_leaving(await keep(client, pod, (DRAIN,)))]
    if kept:
        click.echo(f"{len(kept)} pod(s) stay on {name}: {', '.join(pod.metadata.name for pod in kept)}")


async def _set_unschedulable(client: Client, name: str, value: bool) -> bool:
    """Whether that was a change."""
    from msgspec.structs import replace

    from korch.resources.node import Node

    changed = False

    def set_it(found: Node) -> Node | None:
        nonlocal changed
        changed = found.spec.unschedulable != value
        return replace(found, spec=replace(found.spec, unschedulable=value)) if changed else None

    await client.modify(Node, name, "", set_it)
    return changed


@click.command(
    short_help="Move the pods of nodes elsewhere, new before old.",
    epilog=examples(
        "korch node drain n1 --dry-run      # what would move, and what is in the way",
        "korch node drain n1                # cordon, then move its pods, new before old",
        "korch node drain n1 n2 --timeout 600",
        "korch node drain n1 --force        # also pods that cannot run elsewhere, or that nobody restarts",
        "korch node uncordon n1             # afterwards; or to stop a drain that is under way",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    metavar="S",
    help="Give up waiting after so many seconds; the wish stays on record.",
)
@click.option(
    "--force", is_flag=True, help="Also end pods with volumes or paths of that node, and pods without an owner."
)
@click.option("--dry-run", is_flag=True, help="Say what would happen to each pod, and change nothing.")
@click.option("--no-wait", is_flag=True, help="Record the wish only; a master or `korch sync` makes it true.")
@limit_option
@cluster_options()
def drain(names: tuple[str, ...], timeout_s: int, force: bool, dry_run: bool, no_wait: bool, limit: str) -> None:
    """Empty these nodes: cordon them, then move their pods one replica of an app at a time.

    A pod goes when its replacement elsewhere is available and every PodDisruptionBudget allows it. Pods of DaemonSets
    stay. What is in an emptyDir goes with its pod. The wish is on record: interrupted, the same command goes on.
    """

    async def act(client: Client) -> None:
        wanted = tuple(dict.fromkeys(names))
        await _check(client, wanted, look=not dry_run)
        plan, _ = await _plan(client, wanted, force=force, refuse=not dry_run)
        if dry_run:
            _show(plan, wanted)
            return
        for name in wanted:
            await _close(client, name)
        plan, world = await _plan(client, wanted, force=force)
        await _mark(client, plan)
        if no_wait:
            click.echo("The wish is on record. A master or `korch sync` makes it true.")
            return
        await _follow(client, plan, world, wanted, timeout_s)

    run(act, limit=limit, need_inventory=not dry_run)


async def _check(client: Client, names: Sequence[str], *, look: bool) -> None:
    """Every node exists and answers: what runs on a silent one cannot be moved, only given up."""
    from korch.resources.node import Node
    from korch.resources.podstate import condition

    nodes: list[Node] = [await client.get(Node, name, "") for name in names]
    if look and not (await client.info()).lead:
        seen = {one.node.metadata.name: one.node for one in await client.survey(measure_cpu=False)}
        nodes = [seen.get(node.metadata.name, node) for node in nodes]
    for node in nodes:
        ready = condition(node.status.conditions, "Ready")
        if look and ready is not None and ready.status != "True" and ready.reason != "NotInInventory":
            name = node.metadata.name
            raise ForbiddenError(
                f"{name} is {ready.reason}: {ready.message or 'nothing can be stopped there'}",
                hint=f"Bring it back (korch node check {name}), or give up what it held: korch sync --failover.",
            )


async def _plan(client: Client, names: Sequence[str], *, force: bool, refuse: bool = True) -> tuple[DrainPlan, World]:
    from korch.controllers.disruption import world_of
    from korch.controllers.drain import plan_drain

    world = await world_of(client)
    plan = plan_drain(world, names, force=force)
    if plan.refused and refuse:
        lines = [f"{pod.metadata.name} on {pod.spec.node_name}: {why}" for pod, why in plan.refused]
        raise ForbiddenError(
            "these pods are not moved without --force:\n  " + "\n  ".join(lines),
            hint="With --force they end there. Without it nothing was moved.",
        )
    return plan, world


def _show(plan: DrainPlan, names: Sequence[str]) -> None:
    from korch.cli.output import table

    rows = [
        (move.pod.metadata.name, move.pod.spec.node_name, "stop, then start" if move.stop_first else "move", move.note)
        for move in plan.moves
    ]
    rows += [(pod.metadata.name, pod.spec.node_name, "stay", "belongs to the node: DaemonSet") for pod in plan.stay]
    rows += [(pod.metadata.name, pod.spec.node_name, "refuse", f"{why} (--force ends it)") for pod, why in plan.refused]
    click.echo(table(sorted(rows), ("POD", "NODE", "WHAT", "WHY")) or f"Nothing runs on {', '.join(names)}.")


async def _mark(client: Client, plan: DrainPlan) -> None:
    from korch.controllers.disruption import evict
    from korch.controllers.drain import DRAIN
    from korch.errors import ConflictError, NotFoundError

    for move in plan.moves:
        with contextlib.suppress(NotFoundError, ConflictError):  # it went by itself
            await evict(client, move.pod, DRAIN, stop_first=move.stop_first)


async def _follow(client: Client, plan: DrainPlan, world: World, names: Sequence[str], timeout_s: int) -> None:
    """Until the nodes are empty; what is left is told with the reason."""
    from korch.cli.live import rollout_view

    leaving = [*(move.pod for move in plan.moves), *plan.going]  # a run that was killed left some on their way
    workloads = workloads_of(leaving)
    generations = {
        (found.metadata.namespace, found.metadata.name): found.metadata.generation for found in world.deployments
    }
    since = {one: generations.get((one.namespace, one.name), 0) for one in workloads}
    outcomes: Sequence[Outcome] = ()
    if workloads:
        with rollout_view() as view:
            async with _telling_what_holds(client):
                outcomes = await client.converge(workloads, since=since, timeout_s=timeout_s, on_progress=view.show)
    left = await _left(client, names)
    for note in dict.fromkeys(note for outcome in outcomes for note in outcome.notes):
        click.echo(f"Note: {note}", err=True)
    if left:
        raise RolloutFailedError(
            f"{', '.join(names)}: {len(left)} pod(s) are still there:\n  " + "\n  ".join(left),
            hint="The wish stays on record: `korch sync` goes on, `korch node uncordon` takes it back.",
        )
    for outcome in outcomes:
        if outcome.error is not None:
            click.echo(f"Note: {outcome.error}", err=True)
    moved = f"{len(leaving)} pod(s) left" if leaving else "nothing was there to move"
    stay = f", {len(plan.stay)} of DaemonSets stay" if plan.stay else ""
    click.echo(f"node/{', node/'.join(names)} drained: {moved}{stay}")


def workloads_of(pods: Sequence[Pod]) -> tuple[Workload, ...]:
    """What the pods belong to, each once."""
    from korch.client.base import Workload
    from korch.resources.podstate import workload_name

    return tuple(dict.fromkeys(Workload(pod.metadata.namespace, workload_name(pod)) for pod in pods))


async def _left(client: Client, names: Sequence[str]) -> list[str]:
    """A line for each pod that is still on the nodes, with what it waits for."""
    import time

    from korch.controllers.disruption import plan_evictions, world_of
    from korch.resources.podstate import controller_of

    world = await world_of(client)
    whys = {found.pod.metadata.uid: found.why for found in plan_evictions(world, time.time())}
    lines = []
    for pod in world.pods:
        owner = controller_of(pod)
        ended = pod.status.phase in {"Succeeded", "Failed"}
        if pod.spec.node_name not in names or ended or (owner is not None and owner.kind == "DaemonSet"):
            continue
        stopping = (
            "it is stopping" if pod.metadata.deletion_timestamp else "it may go, and nobody was there to see to it"
        )
        lines.append(f"{pod.metadata.name} on {pod.spec.node_name}: {whys.get(pod.metadata.uid) or stopping}")
    return lines


@contextlib.asynccontextmanager
async def _telling_what_holds(client: Client) -> AsyncIterator[None]:
    """Meanwhile says once for each pod which budget holds it."""
    task = asyncio.create_task(_tell(client), name="what holds pods")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _tell(client: Client) -> None:
    import time

    from korch.controllers.disruption import plan_evictions, world_of

    told: set[str] = set()
    while True:
        with contextlib.suppress(KorchError):
            for found in plan_evictions(await world_of(client), time.time()):
                line = f"{found.pod.metadata.name} waits: {found.why}"
                if found.held and line not in told:
                    told.add(line)
                    click.echo(f"  {line}", err=True)
        await asyncio.sleep(_LOOK_S)
