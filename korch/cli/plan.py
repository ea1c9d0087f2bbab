"""`korch plan`: what would change, per node, before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run

if TYPE_CHECKING:
    from korch.client.base import Client, PlannedStep


@click.command(
    epilog=examples(
        "# what `korch deploy --replicas 3` here would do", "korch plan --replicas 3", "korch plan web:2 --name web"
    )
)
@click.argument("image", required=False)
@click.option("--name", metavar="NAME", help="Name of the app; default: the image's.")
@click.option("--replicas", type=click.IntRange(0, 10_000), metavar="N", help="How many.")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="korch.yml or Kubernetes YAML; `-` = stdin.")
@click.option("--port", "ports", multiple=True, metavar="[NODE:]PORT", help="Publish a port.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment variable.")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Environment that is kept as a Secret.")
@click.option("--cpu", metavar="AMOUNT", help="CPU asked for.")
@click.option("--memory", metavar="AMOUNT", help="Memory asked for.")
@click.option("--health", metavar="PATH", help="HTTP path that answers 200 when a replica is ready.")
@namespace_option
@limit_option
@cluster_options()
def plan(**options: object) -> None:
    """Show what `korch deploy` with the same options would do on which node, and do nothing.

    The tag is resolved as a deploy would do it, which may bring the image to one node.
    """
    from korch.cli.wishes import DeployOptions, read_wish

    rest = {
        "volumes": (), "command": None, "selectors": (), "registry_auth": None, "timeout_s": 120, "settle_s": 2,
        "no_wait": False, "dry_run": False, "output": None,
    }  # fmt: skip
    chosen = DeployOptions(**options, **rest)  # type: ignore[arg-type]
    wish = read_wish(chosen)

    async def act(client: Client) -> None:
        from korch.client.declare import check_ports, pin_images

        pinned = await pin_images(client, await wish.objects(client))
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
