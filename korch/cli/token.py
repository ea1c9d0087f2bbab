"""`korch token`: what was handed out for the API, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, confirm, current_settings, examples, report_and_fail, run_async
from korch.errors import KorchError

if TYPE_CHECKING:
    from korch.api.security.credentials import Credential


@click.group(epilog=examples("korch token list", "korch token revoke 3f9a1c22ab01", "korch token revoke --user ann"))
@cluster_options()
def token() -> None:
    """Credentials for the API: tokens and client certificates. `korch kubeconfig` makes them."""


@token.command("list", epilog=examples("korch token list", "korch token list -o json"))
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default=None, help="Another form of output.")
@cluster_options()
def list_(output: str | None) -> None:
    """List what was handed out: to whom, for what, until when. The secrets themselves are kept nowhere."""
    import time

    from korch.api.security.users import describe_groups
    from korch.cli.output import dump, table
    from korch.resources.times import format_age, rfc3339

    found, now = run_async(_all), time.time()
    if output is not None:
        rows = [
            {
                "id": one.id,
                "kind": one.kind,
                "user": one.user,
                "groups": list(one.groups),
                "created": rfc3339(one.created),
                "expires": rfc3339(one.expires),
            }
            for one in found
        ]
        click.echo(dump(rows, "json" if output == "json" else "yaml"))
    elif found:
        cells = [
            (
                one.id,
                one.kind,
                one.user,
                describe_groups(one.groups),
                format_age(now - one.created),
                f"in {format_age(one.expires - now)}" if one.expires > now else "expired",
            )
            for one in found
        ]
        click.echo(table(cells, ("ID", "KIND", "USER", "ROLE", "AGE", "EXPIRES")))
    else:
        click.echo("Nothing was handed out yet: `korch kubeconfig` makes a credential.", err=True)


@token.command(epilog=examples("korch token revoke 3f9a1c22ab01", "korch token revoke --user ann --yes"))
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--user", metavar="USER", default="", help="All that this user has.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@cluster_options()
def revoke(ids: tuple[str, ...], user: str, yes: bool) -> None:
    """Take credentials back. What is open with them ends within seconds."""
    if not ids and not user:
        raise click.UsageError("Name what to revoke: an ID of `korch token list`, or --user USER.")
    if user:
        mine = tuple(one.id for one in run_async(_all) if one.user == user)
        if not mine:
            raise click.UsageError(f'"{user}" has no credentials: `korch token list` shows who has.')
        confirm(f"Revoke {len(mine)} credential(s) of {user}?", yes=yes)
        ids = (*ids, *mine)
    done, errors = run_async(lambda: _revoke(ids))
    for one in done:
        click.echo(f"{one.kind} {one.id} of {one.user} revoked")
    if errors:
        report_and_fail(errors)


async def _all() -> tuple[Credential, ...]:
    from korch.api.security.credentials import Credentials
    from korch.master.cluster import open_cluster

    async with open_cluster(current_settings(), need_inventory=False) as cluster:
        return await Credentials(cluster.store).all()


async def _revoke(ids: tuple[str, ...]) -> tuple[list[Credential], list[KorchError]]:
    from korch.api.security.credentials import Credentials
    from korch.master.cluster import open_cluster

    done: list[Credential] = []
    errors: list[KorchError] = []
    async with open_cluster(current_settings(), need_inventory=False) as cluster:
        for id_ in dict.fromkeys(ids):
            try:
                done.append(await Credentials(cluster.store).revoke(id_))
            except KorchError as error:
                errors.append(error)
    return done, errors
