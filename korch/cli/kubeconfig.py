"""`korch kubeconfig`: a credential for kubectl, helm and other programs, written where they look for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from korch.cli.base import cluster_options, current_settings, examples, run_async
from korch.cli.logs import duration

if TYPE_CHECKING:
    from korch.api.security.credentials import Credential
    from korch.api.security.kubeconfig import Access
    from korch.api.security.minting import Wish


@click.command(
    epilog=examples(
        "korch kubeconfig                                   # everything, for 90 days, into ~/.kube/config",
        "korch kubeconfig --role edit --namespace shop --name ann -o ann.kubeconfig",
        "korch kubeconfig --role view --token --ttl 1h -o -  # to the terminal",
        "korch kubeconfig --role none --name jane --group dev -o jane.kubeconfig  # RoleBindings say what she may",
        "korch kubeconfig --server https://m1.example.com:6443",
    )
)
@click.option(
    "--role",
    type=click.Choice(["admin", "edit", "view", "none"]),
    default="admin",
    show_default=True,
    help="What it may do; none: what RoleBindings give to its user and groups.",
)
@click.option("-n", "--namespace", metavar="NAME", default="", help="Only in this namespace; default: everywhere.")
@click.option("--group", "teams", metavar="NAME", multiple=True, help="A group for RoleBindings; may be repeated.")
@click.option(
    "--ttl",
    "ttl_s",
    callback=duration,
    default="90d",
    show_default=True,
    metavar="DURATION",
    help="How long it is good: 12h, 90d.",
)
@click.option("--name", "user", metavar="USER", default="", help="Who will use it, for the audit log; default: you.")
@click.option("--token", is_flag=True, help="A bearer token instead of a client certificate.")
@click.option("--server", metavar="URL", default="", help="Where clients reach the API; default: where it was served.")
@click.option("--context", metavar="NAME", default="", help="The context's name; default: korch-CLUSTER[-ROLE].")
@click.option("--force", is_flag=True, help="Replace a context of that name that leads to another cluster.")
@click.option("-o", "--output", metavar="FILE", default="", help="This file instead of kubectl's own; - for stdout.")
@cluster_options(remote=False)
def kubeconfig(server: str, context: str, force: bool, output: str, **who: Any) -> None:
    """Make a credential for the API and write it to a kubeconfig, beside the contexts that are there.

    It says admin, edit or view, everywhere or in one namespace. `korch token list` shows what was handed out,
    `korch token revoke` takes it back. Runs where the cluster's folder is.
    """
    from korch.api.security.kubeconfig import default_path, merged, read, render, write
    from korch.api.security.minting import Wish, context_name
    from korch.api.security.users import describe_groups

    settings = current_settings()
    wish = Wish(**{**who, "user": who["user"] or _who()})
    path = None if output == "-" else Path(output) if output else default_path()
    if path is not None:
        read(path)  # a file that cannot be written to must not cost a credential
    name = context or context_name(settings.cluster, wish.role, wish.namespace)
    access, record = run_async(lambda: _mint(wish, server, name))
    if path is None:
        click.echo(render(merged({}, access)).decode(), nl=False)
        return
    try:
        write(path, access, force=force)
    except BaseException:
        run_async(lambda: _revoke(record.id))
        raise
    may = describe_groups(record.groups)
    click.echo(f"{path}: context {access.context} is current now: {record.user}, {may}, {_until(record)}")


def _who() -> str:
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "user"
    return f"{user}@{socket.gethostname()}"[:64]


def _until(record: Credential) -> str:
    from korch.resources.times import rfc3339

    return f"until {rfc3339(record.expires)}"


async def _mint(wish: Wish, server: str, context: str) -> tuple[Access, Credential]:
    from korch.api.security.minting import mint
    from korch.api.server import was_served, where
    from korch.master.cluster import open_cluster

    settings = current_settings()
    async with open_cluster(settings, need_inventory=False) as cluster:
        if not server and not await was_served(cluster.store):
            click.echo("Note: no master has served the API here yet: start one with `korch master`.", err=True)
        url = server or await where(cluster.store)
        pki = settings.cluster_dir / "pki"
        now = cluster.clock.now()
        return await mint(cluster.store, pki, cluster.record.name, wish, now=now, server=url, context=context)


async def _revoke(id_: str) -> None:
    from korch.api.security.credentials import Credentials
    from korch.master.cluster import open_cluster

    async with open_cluster(current_settings(), need_inventory=False) as cluster:
        await Credentials(cluster.store).revoke(id_)
