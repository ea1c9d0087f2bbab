"""`korch cluster`: the clusters that this machine knows, each a folder under KORCH_HOME/clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, confirm, current_settings, examples, global_options, run, run_async
from korch.errors import KorchError

if TYPE_CHECKING:
    from korch.client.base import Client, ClusterInfo
    from korch.settings import Settings


@click.group(
    epilog=examples(
        "korch cluster list",
        "korch cluster show --cluster lab",
        "korch cluster set-inventory -i hosts.yml",
        "korch cluster rotate-key",
        "korch cluster rm --cluster old",
    )
)
@cluster_options()
def cluster() -> None:
    """The clusters that this machine knows.

    The first inventory makes a cluster: `korch -i hosts.yml nodes` makes "default", `korch -i lab nodes` makes "lab".
    Name another with --cluster or KORCH_CLUSTER.
    """


@cluster.command("list", short_help="List the clusters with their inventories.", epilog=examples("korch cluster list"))
@cluster_options()
def list_() -> None:
    """List the clusters with their inventories; `*` marks the one that commands mean now."""
    from msgspec.structs import replace

    from korch.cli.output import table

    settings = current_settings()
    rows = []
    folder = settings.home / "clusters"
    for name in sorted(path.parent.name for path in folder.glob("*/state.db")):
        mark = "*" if name == settings.cluster else ""
        rows.append((mark, name, *_row(replace(settings, cluster=name, inventories=()))))
    if rows:
        click.echo(table(rows, ("", "NAME", "INVENTORY", "CREATED", "LEAD")))
    else:
        click.echo(f"No clusters under {folder}. The first inventory makes one: korch -i hosts.yml nodes", err=True)


def _row(settings: Settings) -> tuple[str, str, str]:
    try:
        info = run(lambda client: client.info(), need_inventory=False, settings=settings)
    except KorchError as error:  # one damaged cluster must not hide the others
        return f"({error})", "", ""
    return " ".join(info.inventories) or "-", info.created, info.lead or "-"


@cluster.command(
    short_help="Show the cluster that commands mean now.",
    epilog=examples("korch cluster show", "korch cluster show --cluster lab -o json"),
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default=None, help="Another form of output.")
@cluster_options()
def show(output: str | None) -> None:
    """Show the cluster that commands mean now: its record and what it holds."""
    settings = current_settings()

    async def read(client: Client) -> tuple[ClusterInfo, dict[str, int]]:
        from korch.resources.node import Node
        from korch.resources.pod import Pod
        from korch.resources.workload import Deployment

        return await client.info(), {
            "nodes": len((await client.list(Node)).items),
            "deployments": len((await client.list(Deployment)).items),
            "pods": len((await client.list(Pod)).items),
        }

    info, counts = run(read, need_inventory=False)
    if output is not None:
        from korch.cli.output import dump

        data = {
            "name": info.name,
            "id": info.id,
            "inventories": list(info.inventories),
            "created": info.created,
            "lead": info.lead,
            "folder": str(settings.cluster_dir),
            "holds": counts,
            "notes": list(info.notes),
        }
        click.echo(dump(data, "json" if output == "json" else "yaml"))
        return
    from korch.cli.sheet import render

    fields: list[tuple[str, object]] = [
        ("Name", info.name),
        ("Id", info.id),
        ("Inventory", info.inventories),
        ("Created", info.created),
        ("Lead", info.lead or "nobody"),
        ("Folder", str(settings.cluster_dir)),
        *((word.capitalize(), count) for word, count in counts.items()),
    ]
    click.echo(render([*fields, *([("Notes", info.notes)] if info.notes else [])]))


@cluster.command("set-inventory", epilog=examples("korch cluster set-inventory -i hosts.yml -i more-hosts.yml"))
@cluster_options()
def set_inventory() -> None:
    """Record another inventory for the cluster. Hosts that it no longer has are cordoned; their pods stay."""
    from msgspec.structs import replace

    from korch.master.cluster import absolute_source, open_cluster, set_inventories

    settings = current_settings()
    if not global_options().inventories:
        raise click.UsageError("Give the inventory with -i.")
    _need(settings)

    async def change() -> tuple[str, ...]:
        from korch.inventory.load import load_inventory

        sources = tuple(absolute_source(source, settings.home) for source in settings.inventories)
        load_inventory(sources, limit="", home=settings.home)  # a mistake in it must not be recorded
        async with open_cluster(replace(settings, inventories=()), need_inventory=False) as opened:
            return (await set_inventories(opened.store, sources)).inventories

    click.echo(f"cluster/{settings.cluster} uses {' '.join(run_async(change))}")


@cluster.command(
    "rotate-key",
    short_help="Seal all Secrets with a new key.",
    epilog=examples("korch cluster rotate-key", "korch cluster rotate-key --forget-old --yes"),
)
@click.option("--forget-old", is_flag=True, help="Drop the former keys: backups made until now lose their Secrets.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@cluster_options()
def rotate_key(forget_old: bool, yes: bool) -> None:
    """Make a new key for the Secrets in the state, and seal all of them with it. A master may run meanwhile.

    The former keys stay in the key file, for backups, unless they are to be forgotten.
    """
    settings = current_settings()
    _need(settings)
    if forget_old:
        confirm(f"Drop the former keys from {settings.secrets_key}?", yes=yes)
    from korch.master.cluster import rotate_key as rotate

    count = run_async(lambda: rotate(settings, forget_old=forget_old))
    click.echo(f"{settings.secrets_key}: a new key; {count} Secrets are sealed with it")


@cluster.command(
    short_help="Forget a cluster and give up its claim on the nodes.",
    epilog=examples("korch cluster rm --cluster old", "korch cluster rm --cluster old --force --yes"),
)
@click.option("--force", is_flag=True, help="Also while it has workloads; their containers go too.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@cluster_options()
def rm(force: bool, yes: bool) -> None:
    """Forget a cluster: give up its claim on the nodes and remove its folder here."""
    settings = current_settings()
    _need(settings)
    from korch.master.cluster import remove_cluster

    confirm(f'Forget cluster "{settings.cluster}" and remove {settings.cluster_dir}?', yes=yes)
    for note in run_async(lambda: remove_cluster(settings, force=force)):
        click.echo(f"Note: {note}", err=True)
    click.echo(f"cluster/{settings.cluster} removed")


def _need(settings: Settings) -> None:
    from korch.settings import no_such_cluster

    if not settings.state_file.exists():
        raise no_such_cluster(settings)
