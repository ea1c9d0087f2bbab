"""`korch image`: images from this machine to the hosts, without a registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, report_and_fail, run

if TYPE_CHECKING:
    from korch.client.base import ImageSource, PushResult

_MIB = 1024 * 1024


@click.group(epilog=examples("korch image push web:dev", "korch deploy web:dev --replicas 3", "korch image list"))
@cluster_options()
def image() -> None:
    """Send images to hosts without a registry."""


@image.command(
    short_help="Send an image to the hosts' engines over SSH.",
    epilog=examples(
        "korch image push web:dev                 # from this machine's Docker or Podman to every host",
        "korch image push web:dev --nodes rack1   # only to these hosts or groups",
        "korch image push --archive web.tar       # a file that `docker save` wrote",
    ),
)
@click.argument("image", required=False)
@click.option("--archive", type=click.Path(dir_okay=False, path_type=Path), help="Send this file instead.")
@click.option("--nodes", metavar="GROUP", default="", help="Only to these hosts or groups, comma-separated.")
@limit_option
@cluster_options()
def push(image: str | None, archive: Path | None, nodes: str, limit: str) -> None:
    """Send an image that is only on this machine to the hosts' engines over SSH.

    Hosts that have it already are skipped. From then on `korch deploy IMAGE` means exactly what was sent, until a newer
    one is sent or `korch image forget IMAGE` asks the registry again.
    """
    from korch.cli.image_source import from_archive, from_engine

    if (image is None) == (archive is None):
        raise click.UsageError("give an image, or a file with --archive")
    source = from_archive(archive) if archive is not None else from_engine(str(image))
    view = _Progress(source)
    results = run(lambda client: client.push_image(source, nodes or limit, view.show))
    view.end()
    for result in results:
        click.echo(f"  {result.node}: {_words(result)}")
    name = source.references[0] if source.references else source.id
    errors = [result.error for result in results if result.error is not None]
    if errors:
        report_and_fail(errors)
    if image is None:
        click.echo(f"Deploy it as {name}")


def _words(result: PushResult) -> str:
    return {"sent": "sent", "present": "has it already", "failed": "failed"}[result.result]


class _Progress:
    """What is being sent; on a terminal also how far it is, for the slowest host."""

    def __init__(self, source: ImageSource) -> None:
        self._total, self._sent = source.total_bytes, dict[str, int]()
        self._shown, self._live = -1, sys.stdout.isatty()
        size = f", {self._total / _MIB:.1f} MiB" if self._total else ""
        click.echo(f"{' '.join(source.references) or 'image'} ({source.id[:19]}{size})")

    def show(self, node: str, sent_bytes: int) -> None:
        """A host got more."""
        self._sent[node] = sent_bytes
        slowest = min(self._sent.values()) // _MIB
        if self._live and slowest != self._shown:
            self._shown = slowest
            click.echo(f"\r  {slowest} MiB sent to {len(self._sent)} host(s)", nl=False)

    def end(self) -> None:
        """Leave the line."""
        if self._live and self._shown >= 0:
            click.echo("\r\x1b[K", nl=False)


@image.command("list", short_help="List the images that were sent.", epilog=examples("korch image list"))
@cluster_options()
def list_() -> None:
    """List the images that were sent from a machine, and what their names mean since then."""
    from korch.cli.output import table

    found = run(lambda client: client.pushed_images(), need_inventory=False)
    if not found:
        click.echo("No image was pushed.", err=True)
        return
    rows = [(one.reference, one.id[:19], one.pushed_at) for one in found]
    click.echo(table(rows, ("IMAGE", "ID", "PUSHED")))


@image.command(epilog=examples("korch image forget web:dev"))
@click.argument("image")
@cluster_options()
def forget(image: str) -> None:
    """Let an image's name mean again what its registry says. The next prune removes it where nothing uses it."""
    run(lambda client: client.forget_pushed(image), need_inventory=False)
    click.echo(f"{image} is asked of its registry again")
