"""`korch get`: objects as tables, or as they are in JSON and YAML."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click

from korch.cli.base import cluster_options, examples, namespace_option, report_and_fail, run
from korch.errors import KorchError

if TYPE_CHECKING:
    from korch.cli.output import OutputFormat
    from korch.cli.refs import Ref
    from korch.client.base import Client
    from korch.resources.kinds import Kind
    from korch.resources.meta import Object


@dataclass(frozen=True, slots=True)
class Query:
    """What one call of `get` asks for. `namespace` "" means all."""

    namespace: str
    selector: str | None
    output: OutputFormat
    show_labels: bool


@click.command(
    epilog=examples(
        "korch get pods                    # of the namespace default",
        "korch get pods -o wide            # with node, address and published ports",
        "korch get deploy/web -o yaml",
        "korch get pods,deploy -A -l app=web",
        "korch get all",
        "korch get pods -w                 # and every change from now on",
    )
)
@click.argument("what", nargs=-1, required=True, metavar="KIND [NAME]... | KIND/NAME...")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@click.option("-l", "--selector", metavar="SELECTOR", help="Only objects with these labels: app=web,tier!=db.")
@click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), default=None, help="Another form of output."
)
@click.option("--show-labels", is_flag=True, help="Labels as the last column.")
@click.option("-w", "--watch", is_flag=True, help="Go on printing changes until Ctrl-C.")
@cluster_options()
def get(
    what: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    selector: str | None,
    output: str | None,
    show_labels: bool,
    watch: bool,
) -> None:
    """List objects.

    Kinds: pods (po), deployments (deploy), replicasets (rs), nodes (no), events (ev), secrets, namespaces (ns),
    poddisruptionbudgets (pdb), leases, nodeloads; "all" means pods, deployments and replicasets.
    """
    from korch.cli.refs import parse_refs

    refs = parse_refs(what)
    query = Query("" if all_namespaces else namespace, selector, cast("OutputFormat", output or ""), show_labels)
    if watch and (len(refs) != 1 or query.output in {"json", "yaml"}):
        raise click.UsageError("--watch follows one kind, as a table or as names.")
    if selector and any(ref.names for ref in refs):
        raise click.UsageError("Give names or a selector, not both.")
    if watch:
        run(lambda client: _watch(client, refs[0], query), need_inventory=False, endless=True)
    else:
        run(lambda client: _print(client, refs, query), need_inventory=False)


async def _print(client: Client, refs: Sequence[Ref], query: Query) -> None:
    found: list[tuple[Kind, tuple[Object, ...]]] = []
    errors: list[Exception] = []
    for ref in refs:
        objects, missing = await _objects(client, ref, query)
        found.append((ref.kind, objects))
        errors += missing
    everything = [obj for _, objects in found for obj in objects]
    if query.output in ("json", "yaml", "name"):
        from korch.cli.output import render_objects

        single = sum(len(ref.names) for ref in refs) == 1
        if everything or (not errors and query.output != "name"):
            click.echo(render_objects(everything, query.output, single=single))
    elif everything:
        _print_tables(found, query)
    elif not errors:
        where = f" in namespace {query.namespace}" if query.namespace and any(r.kind.namespaced for r in refs) else ""
        click.echo(f"No {' or '.join(ref.kind.plural for ref in refs)} found{where}.", err=True)
    if errors:
        report_and_fail(errors)


async def _objects(client: Client, ref: Ref, query: Query) -> tuple[tuple[Object, ...], list[Exception]]:
    """Objects that are there, and an error for each name that is not."""
    namespace = query.namespace if ref.kind.namespaced else ""
    if not ref.names:
        listing = await client.list(ref.kind.type, namespace, selector=query.selector)
        return _ordered(listing.items), []
    if ref.kind.namespaced and not namespace:
        raise click.UsageError("A name belongs to one namespace: use -n instead of -A.")
    found: list[Object] = []
    errors: list[Exception] = []
    for name in ref.names:
        try:
            found.append(await client.get(ref.kind.type, name, namespace))
        except KorchError as error:
            errors.append(error)
    return tuple(found), errors


def _ordered(objects: tuple[Object, ...]) -> tuple[Object, ...]:
    """Events by time, the newest last; everything else as it came."""
    from korch.cli.columns import event_time
    from korch.resources.misc import Event

    if objects and isinstance(objects[0], Event):
        return tuple(sorted(objects, key=lambda obj: event_time(cast(Event, obj))))
    return objects


def _print_tables(found: Sequence[tuple[Kind, tuple[Object, ...]]], query: Query) -> None:
    """One table a kind, an empty line between them; with several kinds the names carry theirs."""
    from korch.cli.output import table

    several = len(found) > 1
    tables = [_cells(kind, objects, query, with_kind=several) for kind, objects in found if objects]
    click.echo("\n\n".join(table(rows, headers) for headers, rows in tables))


def _cells(
    kind: Kind, objects: Sequence[Object], query: Query, *, with_kind: bool = False
) -> tuple[tuple[str, ...], list[list[object]]]:
    """Headers and rows of one kind."""
    from korch.cli.columns import NONE, columns_of
    from korch.cli.output import reference

    headers, rows = columns_of(kind.type).of(objects, time.time(), wide=query.output == "wide")
    everywhere = kind.namespaced and not query.namespace
    for row, obj in zip(rows, objects, strict=True):
        if with_kind and headers[0] == "NAME":
            row[0] = reference(obj)
        if everywhere:
            row.insert(0, obj.metadata.namespace)
        if query.show_labels:
            row.append(",".join(f"{key}={value}" for key, value in sorted(obj.metadata.labels.items())) or NONE)
    return (*(("NAMESPACE",) if everywhere else ()), *headers, *(("LABELS",) if query.show_labels else ())), rows


async def _watch(client: Client, ref: Ref, query: Query) -> None:
    """The table, then a line for each change."""
    from korch.cli.output import reference, table
    from korch.resources.selectors import matches, parse_selector

    namespace = query.namespace if ref.kind.namespaced else ""
    listing = await client.list(ref.kind.type, namespace, selector=query.selector)
    wanted = parse_selector(query.selector) if query.selector else None
    widths: list[int] = []

    def show(objects: Sequence[Any]) -> None:
        chosen = [obj for obj in objects if not ref.names or obj.metadata.name in ref.names]
        if query.output == "name":
            text = "\n".join(reference(obj) for obj in chosen)
        else:
            headers, rows = _cells(ref.kind, chosen, query)
            text = table(rows, headers, widths=widths)
        if text:
            click.echo(text)

    show(_ordered(listing.items))
    async with client.watch(ref.kind.type, namespace, after=listing.revision) as changes:
        async for change in changes:
            if matches(wanted, change.object.metadata.labels):
                show([change.object])
