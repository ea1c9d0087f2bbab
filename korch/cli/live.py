"""A rollout as it goes: one line per replica that changes in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from korch.client.base import Progress

_MARKS = {"ready": "✓", "failed": "✗", "waiting": "…", "gone": "-", "stopping": "-"}
_COLOURS = {"ready": "green", "failed": "red", "waiting": "yellow", "gone": "dim", "stopping": "dim"}
_QUIET = {"created"}  # steps that a person need not see


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
            more = f": {step.message}" if step.message else ""
            click.echo(f"  {_mark(step.phase)} {step.pod}{where} {step.phase}{more}")


class Board:
    """One row per replica, redrawn as it changes."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: dict[str, tuple[Progress, float]] = {}

    def show(self, step: Progress) -> None:
        """Redraw its row."""
        if step.phase == "note":
            self._live.console.print(step.message, style="yellow")
        elif step.phase not in _QUIET:
            self._rows[step.pod] = (step, time.monotonic())
            self._live.update(self._table())

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for step, _ in self._rows.values():
            colour = _COLOURS.get(step.phase, "cyan")
            mark = Text(_mark(step.phase, plain=True), style=colour)
            table.add_row(mark, step.pod, step.node or "-", Text(step.phase, style=colour), step.message)
        return table


def _mark(phase: str, *, plain: bool = False) -> str:
    mark = _MARKS.get(phase, "·")
    try:
        mark.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return {"✓": "+", "✗": "x", "…": "?", "·": "."}.get(mark, mark)
    colour = {"ready": "green", "failed": "red"}.get(phase)
    return click.style(mark, fg=colour) if colour and not plain else mark


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
