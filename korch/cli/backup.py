"""`korch backup` and `korch restore`: the state in one file, and the way back from one."""

from __future__ import annotations

from pathlib import Path

import click

from korch.cli.base import cluster_options, confirm, current_settings, examples, run, run_async
from korch.errors import AlreadyExistsError


@click.command(epilog=examples("korch backup korch-$(date +%F).db", "korch backup --force /backup/korch.db"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@cluster_options()
def backup(file: Path, force: bool) -> None:
    """Save the cluster's state to FILE, as of one moment; korch may go on meanwhile.

    Secrets in it are sealed: they open with the cluster's secrets.key alone. Keep a copy of that file elsewhere, and
    one of the folder pki, which what `korch kubeconfig` made needs.
    """
    from korch.master.backup import back_up
    from korch.settings import no_such_cluster

    settings = current_settings()
    if not settings.state_file.exists():
        raise no_such_cluster(settings)
    if file.exists() and not force:
        raise AlreadyExistsError(f"{file} exists already", hint="Name another file, or replace it: --force")
    run_async(lambda: back_up(settings, file))
    click.echo(f"{file}: state of cluster {settings.cluster}, {file.stat().st_size} bytes")
    if settings.secrets_key.exists():
        click.echo(f"Its Secrets open with {settings.secrets_key}: keep a copy of that elsewhere.")


@click.command(epilog=examples("korch restore korch-2026-01-31.db", "korch restore --cluster lab lab.db --yes"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@cluster_options()
def restore(file: Path, yes: bool) -> None:
    """Put the state saved in FILE in the place of the cluster's state. Hosts and containers are not touched.

    Refused while another korch uses the state. The former state is kept beside it. Afterwards hosts refuse whoever led
    before. What was deployed since the backup is unknown to the restored state: `korch adopt` takes it in.
    """
    from korch.master.backup import describe, restore_state

    settings = current_settings()
    saved = describe(file)
    there = settings.state_file.exists()
    what = f'Put cluster "{saved.name}" as of {saved.written} in the place of'
    confirm(f"{what} {settings.state_file}?", yes=yes or not there)
    kept_as = run_async(lambda: restore_state(settings, file))
    click.echo(f"{settings.state_file}: cluster {saved.name} ({saved.id}) from {file}")
    if kept_as is not None:
        click.echo(f"The former state is kept as {kept_as}")
    for note in run(lambda client: client.take_over()):
        click.echo(f"Note: {note}", err=True)
