"""`korch adopt`: a lost state rebuilt from the nodes, or orphans taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, confirm, current_settings, examples, run
from korch.errors import StoreError

if TYPE_CHECKING:
    from korch.client.base import ClusterFound


@click.command(
    epilog=examples(
        "korch adopt -i hosts.yml                # after the state file was lost",
        "korch adopt --cluster-id 0d9c... --yes  # when the hosts hold things of several clusters",
        "korch adopt                             # take in containers that the state does not know",
    )
)
@click.option("--cluster-id", metavar="ID", default="", help="Which cluster, when the hosts tell of several.")
@click.option("--dry-run", is_flag=True, help="Show what would be taken in, change nothing.")
@click.option("--fresh", is_flag=True, help="Put the state file aside first: for one that is damaged.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@cluster_options()
def adopt(cluster_id: str, dry_run: bool, fresh: bool, yes: bool) -> None:
    """Rebuild the state from what runs on the hosts.

    Deployments come from the wishes that hosts keep, pods from their containers, which go on running untouched. Secrets
    are known by name only: what is missing is listed. Whoever led the cluster before is refused by the hosts then.
    """
    if fresh:
        _set_aside(dry_run=dry_run, yes=yes)
    try:
        found = run(lambda client: client.adopt(cluster_id, dry_run=True))
    except StoreError as error:
        error.hint = f"{error.hint} Put a damaged state aside and begin anew: korch adopt --fresh -i INVENTORY".strip()
        raise
    _show_clusters(found.clusters, found.id)
    for line in found.taken:
        click.echo(f"  {line}")
    if not found.taken:
        click.echo("Everything that runs on the hosts is on record.")
    if dry_run or not (found.taken or found.takes_over):
        _show_notes(found.notes)
        return
    if not yes:
        _show_notes(found.notes)
    confirm(f'Take this in as cluster "{found.name}"?', yes=yes)
    done = run(lambda client: client.adopt(found.id, dry_run=False))
    _show_notes(done.notes)
    click.echo(f'Cluster "{done.name}" ({done.id}): {len(done.taken)} things taken in. `korch sync` completes it.')


def _set_aside(*, dry_run: bool, yes: bool) -> None:
    from korch.store.backup import set_aside

    settings = current_settings()
    if dry_run:
        raise click.UsageError("--fresh and --dry-run do not go together.")
    if not settings.inventories:
        raise click.UsageError("--fresh also puts the recorded inventory aside: give it with -i.")
    if settings.state_file.exists():
        confirm(f"Put {settings.state_file} aside and begin with an empty state?", yes=yes)
    kept_as = set_aside(settings.state_file)
    if kept_as is not None:
        click.echo(f"The former state is kept as {kept_as}")


def _show_clusters(clusters: tuple[ClusterFound, ...], chosen: str) -> None:
    from korch.cli.output import clean, table

    rows = [
        (
            "*" if one.id == chosen else "",
            one.id,
            clean(one.name),
            clean(one.master_host),
            ",".join(one.nodes),
            str(one.containers),
            str(len(one.workloads)),
        )
        for one in clusters
    ]
    if rows:
        click.echo(table(rows, ("", "CLUSTER ID", "NAME", "MASTER", "NODES", "CONTAINERS", "WORKLOADS")))


def _show_notes(notes: tuple[str, ...]) -> None:
    from korch.cli.output import clean

    for note in dict.fromkeys(notes):
        click.echo(f"Note: {clean(note)}", err=True)
