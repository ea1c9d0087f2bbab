"""`korch nodes`: a look at every host now, as a table with bars on a terminal and plain columns elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from korch.cli.nodes_view import Row
    from korch.client.base import Client, NodeSeen

_WARM, _HOT = 0.7, 0.9  # where a bar turns yellow, and red
_CALM, _TROUBLED = {"Ready"}, {"Cordoned", "NotInInventory", "DiskPressure", "MemoryPressure", "AddressUnknown"}


@click.command(
    epilog=examples(
        "korch nodes                   # load, memory and disk of every host, measured now",
        "korch nodes -i hosts.yml --limit rack1",
        "korch nodes -o wide           # addresses, zone, kernel, pressure, clock, labels too",
        "korch nodes --watch           # live, until Ctrl-C",
        "korch nodes -o json | jq '.items[] | select(.state != \"Ready\") | .name'",
    )
)
@click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml"]), default=None, help="Another form of output."
)
@click.option("-w", "--watch", is_flag=True, help="Look again and again until Ctrl-C.")
@click.option("--interval", default=2.0, metavar="SECONDS", type=click.FloatRange(0.5), help="With --watch; default 2.")
@limit_option
@cluster_options()
def nodes(output: str | None, watch: bool, interval: float, limit: str) -> None:
    """Show the hosts: state, load, memory, disk, pods, engine.

    All hosts are asked at the same time; one that does not answer is given up after 10 s and listed with its reason.
    """
    if watch and output in ("json", "yaml"):
        raise click.UsageError("--watch shows a table, not JSON or YAML.")

    async def show(client: Client) -> None:
        names = await client.node_names() if limit else ()
        if watch:
            await _watch(client, names, wide=output == "wide", interval_s=interval)
            return
        seen, rows = await _look(client, names)
        if output in ("json", "yaml"):
            from korch.cli.nodes_view import as_data
            from korch.cli.output import dump

            click.echo(dump(as_data(seen, rows), "json" if output == "json" else "yaml"))
        elif not rows:
            click.echo("The inventory has no hosts.", err=True)
        else:
            _print(rows, wide=output == "wide")

    run(show, limit=limit, looks=True, endless=watch)


async def _look(client: Client, names: Sequence[str]) -> tuple[tuple[NodeSeen, ...], tuple[Row, ...]]:
    from korch.cli.nodes_view import rows_of
    from korch.resources.pod import Pod

    seen = await client.survey(names)
    pods = (await client.list(Pod)).items
    return seen, rows_of(seen, pods, time.time())


def _print(rows: Sequence[Row], *, wide: bool) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        console.print(rich_view(rows, console, wide=wide), crop=False)
        return
    from korch.cli.nodes_view import plain, troubles

    click.echo("\n".join([plain(rows, wide=wide), *(["", *found] if (found := troubles(rows)) else [])]))


async def _watch(client: Client, names: Sequence[str], *, wide: bool, interval_s: float) -> None:
    """The table again and again; in place on a terminal, one below the other elsewhere."""
    import asyncio

    if not sys.stdout.isatty():
        while True:
            _, rows = await _look(client, names)
            _print(rows, wide=wide)
            click.echo()
            await asyncio.sleep(interval_s)
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            _, rows = await _look(client, names)
            live.update(rich_view(rows, console, wide=wide), refresh=True)
            await asyncio.sleep(interval_s)


@dataclass(frozen=True, slots=True)
class Density:
    """How much of a table fits: length of bars (0: only percentages), and which details are shown."""

    bar: int
    totals: bool = False
    since: bool = False
    versions: bool = False


_DENSITIES = (
    Density(10, totals=True, since=True, versions=True),
    Density(10, since=True, versions=True),
    Density(6, since=True, versions=True),
    Density(5),
    Density(0),
)


def rich_view(rows: Sequence[Row], console: Console, *, wide: bool = False) -> RenderableType:
    """The widest table that fits, and below it what is wrong and what helps. Bars are ASCII where the terminal is.

    A wide table that fits in no way is plain lines, which the terminal wraps: nothing is cut off.
    """
    from rich.console import Group
    from rich.text import Text

    from korch.cli.nodes_view import plain, troubles

    fancy = console.encoding.lower().startswith("utf")
    grid: RenderableType
    for density in _DENSITIES:
        grid = _grid(rows, density, fancy=fancy, wide=wide)
        if console.measure(grid, options=console.options.update_width(9999)).maximum <= console.width:
            break
    else:
        if wide:
            lines = plain(rows, wide=True)
            grid = Text(lines if fancy else lines.replace("–", "-"), no_wrap=True, overflow="ignore")
    found = troubles(rows, arrow="→" if fancy else "->")
    return Group(grid, *(Text(line, style="dim" if line.startswith("  ") else "") for line in found))


def _grid(rows: Sequence[Row], density: Density, *, fancy: bool, wide: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from korch.cli.nodes_view import WIDE_HEADERS

    grid = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=False, collapse_padding=True, header_style="bold")
    for header in ("NODE", "STATE", "CPU", "MEMORY", "DISK", "LOAD"):
        grid.add_column(header, no_wrap=True)
    grid.add_column("PODS", justify="right")
    grid.add_column("ENGINE", no_wrap=True)
    for header in WIDE_HEADERS if wide else ():
        grid.add_column(header)
    for row in rows:
        engine = row.engine if density.versions else row.engine.split()[0]
        totals = (row.memory_total, row.disk_total) if density.totals else ("", "")
        cells = (
            Text(row.name, style="bold"),
            _state(row, since=density.since),
            bar(row.cpu, density.bar, fancy=fancy),
            bar(row.memory, density.bar, totals[0], fancy=fancy),
            bar(row.disk, density.bar, totals[1], fancy=fancy),
            _load(row, fancy=fancy),
            Text(str(row.pods)),
            *(Text(cell if fancy else cell.replace("–", "-")) for cell in (engine, *(row.wide if wide else ()))),
        )
        grid.add_row(*cells)
    return grid


def _state(row: Row, *, since: bool) -> Text:
    from rich.text import Text

    colour = "green" if row.state in _CALM else "yellow" if row.state in _TROUBLED else "red"
    shown = f" {row.since}" if since and row.since and row.state not in _CALM else ""
    return Text.assemble((row.state, colour), (shown, "dim"))


def _load(row: Row, *, fancy: bool) -> Text:
    from rich.text import Text

    if row.load1 is None or row.cpus is None:
        return Text("–" if fancy else "-", style="dim")
    return Text.assemble((f"{row.load1:.2f}", _heat(row.load1 / max(row.cpus, 1))), (f"/{row.cpus}", "dim"))


def _heat(ratio: float) -> str:
    return "green" if ratio < _WARM else "yellow" if ratio < _HOT else "red"


def bar(ratio: float | None, size: int, total: str = "", *, fancy: bool = True) -> Text:
    """`██████░░░░ 62% of 1.9Gi`, coloured by how full it is; a dash where nothing is known."""
    from rich.text import Text

    if ratio is None:
        return Text("–" if fancy else "-", style="dim")
    held = min(max(ratio, 0.0), 1.0)
    if size == 0:
        return Text(f"{ratio * 100:3.0f}%", style=_heat(held))
    full, empty = ("█", "░") if fancy else ("#", ".")
    filled = round(held * size) or int(held > 0.02)
    return Text.assemble(
        (full * filled, _heat(held)),
        (empty * (size - filled), "dim"),
        f" {ratio * 100:3.0f}%",
        (f" of {total}" if total else "", "dim"),
    )
