"""`korch plan`: what would change, per node, before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run
from korch.cli.wish_options import wish_options

if TYPE_CHECKING:
    from korch.client.base import Client, PlannedStep


@click.command(
    epilog=examples(
        "# what `korch deploy --replicas 3` here would do", "korch plan --replicas 3", "korch plan web:2 --name web"
    )
)
@wish_options
@namespace_option
@limit_option
@cluster_options()
def plan(**options: Any) -> None:
    """Show what `korch deploy` with the same options would do on which node, and do nothing.

    The tag is resolved as a deploy would do it, which may bring the image to one node.
    """
    from korch.cli.wishes import DeployOptions, read_wish

    chosen = DeployOptions(**options)
    wish = read_wish(chosen)

    async def act(client: Client) -> None:
        from korch.client.declare import check_ports, pin_images

        pinned = await pin_images(client, await wish.objects(client), say=lambda text: click.echo(text, err=True))
        await client.survey(measure_cpu=False)
        await check_ports(client, pinned)
        show(await client.preview(pinned))

    run(act, limit=chosen.limit)


def show(steps: tuple[PlannedStep, ...]) -> None:
    """The steps in order, and their sum."""
    if not steps:
        click.echo("Nothing would change.")
        return
    marks = {"start": "+", "stop": "-", "wait": "?"}
    for step in steps:
        where = f" on {step.node}" if step.node else ""
        verb = {"start": "start", "stop": "stop", "wait": "cannot place"}[step.do]
        click.echo(f"  {marks[step.do]} {verb} {step.pod}{where}: {step.why}")
    counts = {do: sum(step.do == do for step in steps) for do in ("start", "stop", "wait")}
    text = f"{counts['start']} to start, {counts['stop']} to stop"
    click.echo(text + (f", {counts['wait']} that fit nowhere" if counts["wait"] else ""))
