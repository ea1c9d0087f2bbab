"""`korch top`: what hosts and pods use now, the busiest first."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run

if TYPE_CHECKING:
    from korch.client.base import Client

_SAMPLES = 20  # of the history in a sparkline


def _watch_options(function: Callable[..., None]) -> Callable[..., None]:
    watch = click.option("-w", "--watch", is_flag=True, help="Look again and again until Ctrl-C.")
    interval = click.option(
        "--interval", default=2.0, metavar="SECONDS", type=click.FloatRange(0.5), help="With --watch; default 2."
    )
    return watch(interval(function))


@click.group(
    epilog=examples(
        "korch top nodes", "korch top pods -A", "korch top pods --sort memory --watch", "korch top nodes -w"
    )
)
@cluster_options()
def top() -> None:
    """What hosts and pods use now."""


@top.command(epilog=examples("korch top nodes", "korch top nodes --watch"))
@_watch_options
@limit_option
@cluster_options()
def nodes(watch: bool, interval: float, limit: str) -> None:
    """The hosts by load, measured now, with what it was lately."""

    async def look(client: Client) -> str:
        from korch.cli.nodes_view import rows_of, troubles
        from korch.cli.top_view import nodes_text
        from korch.resources.pod import Pod

        seen = await client.survey(await client.node_names() if limit else ())
        rows = rows_of(seen, (await client.list(Pod)).items, time.time())
        text = nodes_text(rows, await client.load_history(_SAMPLES), fancy=_fancy())
        return "\n".join([text, *(["", *found] if (found := troubles(rows)) else [])])

    _show(look, watch=watch, interval_s=interval, limit=limit)


@top.command(
    epilog=examples(
        "korch top pods", "korch top pods -A --sort memory", "korch top pods web     # whose names begin like this"
    )
)
@click.argument("prefix", default="", metavar="[NAME]")
@click.option(
    "--sort", type=click.Choice(["cpu", "memory"]), default="cpu", show_default=True, help="Which goes first."
)
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Pods of every namespace.")
@_watch_options
@limit_option
@cluster_options()
def pods(
    prefix: str, sort: str, namespace: str, all_namespaces: bool, watch: bool, interval: float, limit: str
) -> None:
    """The pods by use, measured now.

    Beside it stands how much of their requests and limits that is. CPU and memory are those of their cgroups; memory is
    without what the kernel can drop. Hosts that cannot be asked are named below.
    """

    async def look(client: Client) -> str:
        from korch.cli.top_view import pod_rows, pods_text, silent_text
        from korch.resources.pod import Pod

        usage = await client.usage()
        found = (await client.list(Pod, "" if all_namespaces else namespace)).items
        rows = pod_rows(
            [pod for pod in found if pod.metadata.name.startswith(prefix)], usage, by_memory=sort == "memory"
        )
        lines = [pods_text(rows, everywhere=all_namespaces) or "No pods run.", *silent_text(usage)]
        return "\n".join(lines)

    _show(look, watch=watch, interval_s=interval, limit=limit)


def _show(look: Callable[[Client], Awaitable[str]], *, watch: bool, interval_s: float, limit: str) -> None:
    """Once, or in place again and again; one below the other where there is no terminal."""

    async def act(client: Client) -> None:
        click.echo(await look(client))
        while watch:
            await asyncio.sleep(interval_s)
            text = await look(client)
            if sys.stdout.isatty():
                click.clear()
            click.echo(text if sys.stdout.isatty() else f"\n{text}")

    run(act, limit=limit, looks=True, endless=watch)


def _fancy() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
