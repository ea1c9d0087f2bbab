"""`korch status`: the whole cluster at one glance, from what is on record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, run

if TYPE_CHECKING:
    from korch.cli.status_view import Seen
    from korch.client.base import Client

NOT_WELL = 9


@click.command(
    epilog=examples(
        "korch status",
        "korch status -o json | jq .healthy",
        "korch status --check && echo all is well",
    )
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default=None, help="Another form of output.")
@click.option("--check", is_flag=True, help=f"Exit code {NOT_WELL} when something is wrong or under way.")
@cluster_options()
def status(output: str | None, check: bool) -> None:
    """Tell who leads, how hosts and apps are, what is wrong and since when, and what to do.

    It reads what is on record and contacts no host.
    """
    from korch.cli.status_view import as_data, status_of, text_of

    found = status_of(run(_look, need_inventory=False), time.time())
    if output is None:
        click.echo(text_of(found))
    else:
        from korch.cli.output import dump

        click.echo(dump(as_data(found), "json" if output == "json" else "yaml"))
    if check and not found.healthy:
        raise SystemExit(NOT_WELL)


async def _look(client: Client) -> Seen:
    from korch.cli.status_view import Seen
    from korch.controllers.disruption import world_of
    from korch.resources.misc import Event
    from korch.resources.node import Node, NodeLoad
    from korch.resources.workload import DaemonSet

    return Seen(
        await client.info(),
        await world_of(client),
        (await client.list(Node)).items,
        (await client.list(NodeLoad)).items,
        (await client.list(DaemonSet)).items,
        (await client.list(Event)).items,
    )
