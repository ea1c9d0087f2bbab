"""`korch prune`: remove what nothing uses any more."""

from __future__ import annotations

import click

from korch.cli.base import cluster_options, confirm, examples, run


@click.command(
    epilog=examples("korch prune", "korch prune --orphans        # also containers that the state does not know")
)
@click.option("--orphans", is_flag=True, help="Also containers of this cluster that its state never heard of.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@cluster_options()
def prune(orphans: bool, yes: bool) -> None:
    """Remove images and leftovers that nothing uses any more, on every host that answers.

    Only images that korch itself brought there, that no container uses, and that no revision on record needs. Also
    Secrets and kept wishes of deployments that are gone. Named volumes stay.
    """
    uids: frozenset[str] = frozenset()
    if orphans:
        found = run(lambda client: client.orphans())
        for one in found:
            click.echo(f"  {one.node}: {one.container} ({one.state})")
        if found:
            confirm(f"Remove these {len(found)} containers? (`korch adopt` would take them in.)", yes=yes)
        else:
            click.echo("There are no orphans.")
        uids = frozenset(one.uid for one in found)
    done = run(lambda client: client.prune(orphans=uids))
    for line in done.removed:
        click.echo(f"{line} removed")
    if not done.removed:
        click.echo("There was nothing to remove.")
    for note in done.notes:
        click.echo(f"Note: {note}", err=True)
