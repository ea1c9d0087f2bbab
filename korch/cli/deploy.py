"""`korch deploy`: an app's wish, made true, with what happens shown as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run, timeout_option
from korch.cli.wish_options import wish_options

if TYPE_CHECKING:
    from korch.client.base import Client


@click.command(
    epilog=examples(
        "# in a folder with a korch.yml",
        "korch deploy --replicas 3",
        "# without one",
        "korch deploy registry.lab/web:1.4 --replicas 3 --port 8080:80 --env LOG_LEVEL=info",
        "# what it would do",
        "korch deploy --replicas 3 --dry-run -o yaml",
    )
)
@wish_options
@timeout_option
@click.option(
    "--settle",
    "settle_s",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    metavar="S",
    help="How long each replica must have run well before it counts.",
)
@click.option("--no-wait", is_flag=True, help="Record the wish only; `korch sync` or a master makes it true.")
@click.option("--dry-run", is_flag=True, help="Show the objects, change nothing.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), help="With --dry-run.")
@namespace_option
@limit_option
@cluster_options()
def deploy(**options: Any) -> None:
    """Run an app in N replicas on the hosts that suit best.

    Without IMAGE and -f it reads korch.yml in this folder. The same command again changes nothing; a changed image or
    setting is rolled out one replica at a time, and goes back when the new one fails.
    """
    from korch.cli.wishes import DeployOptions, read_wish

    chosen = DeployOptions(**options)
    wish = read_wish(chosen)
    if chosen.dry_run:
        from korch.cli.wishes import show_dry_run

        show_dry_run(wish, chosen)
        return
    limit = chosen.limit

    async def act(client: Client) -> bool:
        from korch.cli.rollout_view import carry_out

        return await carry_out(client, await wish.objects(client), chosen.timeout_s, wait=not chosen.no_wait)

    if not run(act, limit=limit):
        raise SystemExit(9)
