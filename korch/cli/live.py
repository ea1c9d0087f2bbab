"""A rollout as it goes: one line per replica that changes in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from korch.cli.output import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from korch.client.base import Progress

_MARKS = {"ready": "✓", "failed": "✗", "waiting": "…", "gone": "-", "lost": "-", "stopping": "-"}
_COLOURS = {"ready": "green", "failed": "red", "waiting": "yellow", "gone": "dim", "lost": "dim", "stopping": "dim"}
_QUIET = {"created"}  # steps that a person need not see
_DONE = {"ready", "gone", "lost"}
_PLAIN = {"✓": "+", "✗": "x", "…": "?", "·": "."}


class View(Protocol):
    """Where the steps are shown."""

    def show(self, step: Progress) -> None:
        """One step happened."""
        ...


class Lines:
    """One line a step, for logs and pipes."""

    def show(self, step: Progress) -> None:
        """Print it."""
        if step.phase == "note":
            click.echo(step.message, err=True)
        elif step.phase not in _QUIET:
            where = f" on {step.node}" if step.node else ""
            more = f": {clean(step.message)}" if step.message else ""
            mark = _mark(step.phase, sys.stdout.encoding)
            colour = {"ready": "green", "failed": "red"}.get(step.phase)
            click.echo(f"  {click.style(mark, fg=colour) if colour else mark} {step.pod}{where} {step.phase}{more}")


class Board:
    """One row per replica, redrawn as it changes; where the screen is too low, those that are done give way."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: dict[str, Progress] = {}

    def show(self, step: Progress) -> None:
        """Redraw its row."""
        if step.phase == "note":
            self._live.console.print(clean(step.message), style="yellow", markup=False)
        elif step.phase not in _QUIET:
            self._rows[step.pod] = step
            self._live.update(self._view())

    def _view(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        console = self._live.console
        shown, left_out = rows_that_fit(list(self._rows.values()), console.height - 3)
        table = Table.grid(padding=(0, 2))
        for step in shown:
            colour = _COLOURS.get(step.phase, "cyan")
            mark = Text(_mark(step.phase, console.encoding), style=colour)
            table.add_row(
                mark, Text(step.pod), Text(step.node or "-"), Text(step.phase, style=colour), Text(clean(step.message))
            )
        return Group(table, Text(left_out, style="dim")) if left_out else table


def rows_that_fit(rows: Sequence[Progress], room: int) -> tuple[list[Progress], str]:
    """The rows to show when only `room` fit, those at work before those that are done, and how many others are how."""
    if len(rows) <= room:
        return list(rows), ""
    first = sorted(range(len(rows)), key=lambda index: (rows[index].phase in _DONE, index))
    kept = set(first[: max(room - 1, 1)])
    others = Counter(row.phase for index, row in enumerate(rows) if index not in kept)
    counts = ", ".join(f"{count} {phase}" for phase, count in others.items())
    return [row for index, row in enumerate(rows) if index in kept], f"and {sum(others.values())} more: {counts}"


def _mark(phase: str, encoding: str | None) -> str:
    mark = _MARKS.get(phase, "·")
    try:
        mark.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN.get(mark, mark)
    return mark


@contextmanager
def rollout_view() -> Iterator[View]:
    """The view that suits where the output goes."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), refresh_per_second=8, transient=False) as live:
        yield Board(live)
