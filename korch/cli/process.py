"""The command's process: its event loop, what signals mean, its log, its garbage.

Loaded when a command begins to work, and so not by `korch --help`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

T = TypeVar("T")


def run_to_end(action: Callable[[], Awaitable[T]], *, verbosity: int, endless: bool) -> T:
    """What `action()` returns; Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can clean up."""
    _set_up_logging(verbosity)
    if endless:
        collect_garbage()
    try:
        return asyncio.run(_cancelled_by_signals(action))
    except KeyboardInterrupt:
        if endless:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal has printed ^C
            raise SystemExit(130) from None
        raise


def collect_garbage() -> None:
    """As a process needs it that lives on; a short one leaves before it is worth while (see `main`)."""
    gc.set_threshold(50_000, 20, 20)


async def _cancelled_by_signals(action: Callable[[], Awaitable[T]]) -> T:
    task, loop, received = asyncio.current_task(), asyncio.get_running_loop(), list[int]()
    assert task is not None

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants to be left alone
            loop.add_signal_handler(number, stop, number)
    try:
        return await action()
    except asyncio.CancelledError:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise


def _set_up_logging(verbosity: int) -> None:
    """Log lines on stderr from `-v` on; without it none at all (also none of the SSH library's own)."""
    root = logging.getLogger()
    if verbosity == 0:
        root.addHandler(logging.NullHandler())
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("korch").setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
