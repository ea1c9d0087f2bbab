"""`korch apply`: Kubernetes manifests made true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run, timeout_option

if TYPE_CHECKING:
    from korch.client.base import Client


@click.command(
    epilog=examples(
        "korch apply -f web.yml",
        "# a folder of manifests",
        "korch apply -f manifests/",
        "helm template ./chart | korch apply -f -",
    )
)
@click.option(
    "-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="File, folder, or `-` = stdin."
)
@timeout_option
@click.option("--no-wait", is_flag=True, help="Record the wish only; `korch sync` or a master makes it true.")
@click.option("--dry-run", is_flag=True, help="Check the manifests, change nothing.")
@namespace_option
@limit_option
@cluster_options()
def apply(files: tuple[str, ...], timeout_s: int, no_wait: bool, dry_run: bool, namespace: str, limit: str) -> None:
    """Make Kubernetes manifests true: create what is missing, change what differs, keep what others set.

    A field that korch does not honour is refused with its file and line, or named in a warning.
    """
    from korch.cli.files import read_manifests

    objects = read_manifests(files, namespace)
    if dry_run:
        from korch.client.declare import title

        for obj in objects:
            click.echo(f"{title(obj)} is valid (dry run)")
        return

    async def act(client: Client) -> bool:
        from korch.cli.rollout_view import carry_out

        return await carry_out(client, objects, timeout_s, wait=not no_wait)

    if not run(act, limit=limit):
        raise SystemExit(9)
