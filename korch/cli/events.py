"""`korch events`: what happened lately, once or as it happens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, namespace_option, run

if TYPE_CHECKING:
    from korch.client.base import Client
    from korch.resources.misc import Event


_GENERATED = "(-[bcdfghjklmnpqrstvwxz2456789]{5,10}){1,2}"  # what names of replica sets and pods end in


@click.command(
    epilog=examples(
        "korch events                    # of the namespace default, the newest last",
        "korch events --for deploy/web",
        "korch events --types Warning -A",
        "korch events -w                 # and every new one, until Ctrl-C",
    )
)
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Events of every namespace.")
@click.option("--for", "subject", metavar="KIND/NAME", help="Only what happened to this object and to what it owns.")
@click.option(
    "--types", metavar="TYPE", help="Only Normal or only Warning events.", type=click.Choice(["Normal", "Warning"])
)
@click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml"]), default=None, help="Another form of output."
)
@click.option("-w", "--watch", is_flag=True, help="Go on printing new ones until Ctrl-C.")
@cluster_options()
def events(
    namespace: str, all_namespaces: bool, subject: str | None, types: str | None, output: str | None, watch: bool
) -> None:
    """Show what happened: placements, starts, failures, refusals."""
    wanted = _filter(subject, types)
    scope = "" if all_namespaces else namespace
    if watch and output in ("json", "yaml"):
        raise click.UsageError("--watch prints lines, not JSON or YAML.")

    async def show(client: Client) -> None:
        from korch.cli.columns import event_time
        from korch.resources.misc import Event

        listing = await client.list(Event, scope)
        found = sorted(filter(wanted, listing.items), key=lambda event: (event_time(event), _written(event)))
        if output in ("json", "yaml"):
            from korch.cli.output import render_objects

            click.echo(render_objects(found, "json" if output == "json" else "yaml", single=False))
            return
        printer = _printer(everywhere=not scope, wide=output == "wide")
        printer(found)
        if not watch:
            if not found:
                click.echo("No events found.", err=True)
            return
        async with client.watch(Event, scope, after=listing.revision) as changes:
            async for change in changes:
                if change.type != "DELETED" and wanted(change.object):
                    printer([change.object])

    run(show, need_inventory=False, endless=watch)


def _written(event: Event) -> int:
    """The store's revision: tells the order of what happened within one second."""
    version = event.metadata.resource_version
    return int(version) if version.isdigit() else 0


def _filter(subject: str | None, types: str | None) -> Callable[[Event], bool]:
    """Which events to show. What a deployment owns carries its name in front: replica sets and pods."""
    from korch.cli.refs import parse_refs

    kind, name = "", ""
    if subject is not None:
        if "/" not in subject:
            raise click.BadParameter(f'"{subject}" is not KIND/NAME, such as pod/web-1.', param_hint="--for")
        ref = parse_refs((subject,))[0]
        kind, name = ref.kind.name, ref.names[0]

    owns = kind in ("Deployment", "ReplicaSet", "DaemonSet")
    owner = re.compile(re.escape(name) + _GENERATED) if owns else None

    def wanted(event: Event) -> bool:
        about = event.involved_object
        mine = not name or (about.kind == kind and about.name == name)
        below = owner is not None and about.kind in ("ReplicaSet", "Pod") and owner.fullmatch(about.name) is not None
        return (mine or below) and (types is None or event.type == types)

    return wanted


def _printer(*, everywhere: bool, wide: bool) -> Callable[[Sequence[Event]], None]:
    """A function that prints lines aligned with those before; the header comes with the first."""
    from korch.cli.columns import columns_of
    from korch.cli.output import table
    from korch.resources.misc import Event

    widths: list[int] = []

    def show(found: Sequence[Event]) -> None:
        headers, rows = columns_of(Event).of(found, time.time(), wide=wide)
        if everywhere:
            headers = ("NAMESPACE", *headers)
            for row, event in zip(rows, found, strict=True):
                row.insert(0, event.metadata.namespace)
        text = table(rows, headers, widths=widths)
        if text:
            click.echo(text)

    return show
