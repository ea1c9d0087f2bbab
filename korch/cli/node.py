"""`korch node`: what a person does to one host: check it, trust its key, keep pods away, prepare it, forget it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from korch.cli.base import cluster_options, confirm, examples, limit_option, on_terminal, run
from korch.cli.node_drain import cordon, drain, uncordon
from korch.errors import ForbiddenError, KorchError

if TYPE_CHECKING:
    from korch.client.base import Check, Client
    from korch.resources.node import Node

CHECK_FAILED = 8  # the exit code of `korch node check` when a check failed; documented with the others


class _NodeGroup(click.Group):
    """`prepare` brings Ansible along: it is imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.commands, "prepare"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "prepare":
            return super().get_command(ctx, cmd_name)
        from korch.cli.node_prepare import prepare

        command: click.Command = prepare
        return command


@click.group(
    cls=_NodeGroup,
    epilog=examples(
        "korch node check              # the doctor, for every host",
        "korch node trust n1           # accept its SSH host key",
        "korch node cordon n1          # no new pods there",
        "korch node drain n1           # and its pods move elsewhere, new before old",
        "korch node lost n1            # it is gone for good: replace what ran there",
        "korch node rm n1              # forget a host that left the inventory",
    ),
)
@cluster_options()
def node() -> None:
    """Check, trust, cordon, drain, prepare, give up or remove a host."""


for _command in (cordon, uncordon, drain):
    node.add_command(_command)


# --- trust ---


@node.command(
    short_help="Accept the SSH host key that a node shows now.",
    epilog=examples(
        "korch node trust n1                             # shows the fingerprint and asks",
        "korch node trust n1 --fingerprint SHA256:kXv... # for scripts: only if it is this one",
        "# where a jump host's key is unknown or changed, that one is asked about first",
        "korch node trust n1 n2 n3 --yes                 # whatever they show: only on a network you trust",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.option(
    "--fingerprint", metavar="SHA256:...", help="Accept the key only if it has this fingerprint; asks nothing."
)
@click.option("-y", "--yes", is_flag=True, help="Accept what the node shows without asking.")
@cluster_options()
def trust(names: tuple[str, ...], fingerprint: str | None, yes: bool) -> None:
    """Accept the SSH host key that a node shows now; before it, those of jump hosts on the way."""
    if fingerprint and len(names) > 1:
        raise click.UsageError("--fingerprint belongs to one node.")
    if not (fingerprint or yes or on_terminal()):
        raise click.UsageError("There is no terminal to ask on: give --fingerprint SHA256:... or --yes.")

    left = list(names)
    asked: set[tuple[str, str]] = set()  # each key once, however many nodes are behind that jump host
    while left:
        left = _trust_next(left, fingerprint, asked, yes=yes)
        if left and fingerprint is not None:
            click.echo(f"The key of {left[0]} itself comes next: korch node trust {left[0]}")
            return


def _trust_next(names: Sequence[str], fingerprint: str | None, asked: set[tuple[str, str]], *, yes: bool) -> list[str]:
    """Accept what the nodes, or jump hosts before them, show now; the nodes whose own key was not shown yet."""

    async def fetch(client: Client) -> list[tuple[str, str, str, str]]:
        return [(name, *await client.fetch_host_key(name)) for name in names]

    accepted: list[tuple[str, str, str]] = []
    found = run(fetch)
    for name, whose, key_type, shown in found:
        if (whose, shown) in asked:
            continue
        asked.add((whose, shown))
        if fingerprint is not None and _bare(fingerprint) != _bare(shown):
            raise ForbiddenError(
                f"{whose} shows the {key_type} key {shown}, not {fingerprint}: it was not accepted",
                hint="Somebody may stand in between, or the machine was set up anew: look on its console.",
            )
        click.echo(f"{whose} shows the {key_type} key {shown}")
        if fingerprint is None and not yes:  # asked outside of the event loop, where Ctrl-C works as everywhere
            click.echo("Compare it on the machine: for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done")
            confirm("Trust it?", yes=False)
        accepted.append((name, whose, shown))

    async def accept(client: Client) -> None:
        for name, whose, shown in accepted:
            await client.trust_host_key(name, shown)
            click.echo(f"{whose} is trusted.")

    run(accept)
    left = [name for name, whose, _, _ in found if whose != name]
    if left and not accepted:
        raise KorchError(f"{left[0]}: a jump host before it shows a key that was accepted, and is refused nevertheless")
    return left


def _bare(fingerprint: str) -> str:
    """Without the prefix that some tools print, and without base64's padding."""
    return fingerprint.strip().removeprefix("SHA256:").rstrip("=")


# --- check ---


@node.command(
    short_help="The doctor: what is missing on hosts, and how to get it.",
    epilog=examples(
        "korch node check                # every host",
        "korch node check n1 n2",
        "korch node check --problems     # only what is not in order",
        f"Exit code: 0 when nothing failed (warnings are no failure), {CHECK_FAILED} else.",
    ),
)
@click.argument("names", nargs=-1, metavar="[NODE]...")
@click.option("--problems", is_flag=True, help="Leave out what is in order.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default=None, help="Another form of output.")
@limit_option
@cluster_options()
def check(names: tuple[str, ...], problems: bool, output: str | None, limit: str) -> None:
    """Look at every precondition on hosts and say what to do about what is missing.

    SSH and its limits, rights on the engine, sudo, forwarding, disk, clock, ports, addresses.
    """
    found = run(lambda client: _check_all(client, names), limit=limit, looks=True)
    if output is not None:
        from korch.cli.output import dump

        click.echo(dump(_as_data(found), "json" if output == "json" else "yaml"))
    else:
        click.echo(_check_text(found, problems=problems))
    if any(one.result == "fail" for checks in found.values() for one in checks):
        raise SystemExit(CHECK_FAILED)


async def _check_all(client: Client, names: Sequence[str]) -> dict[str, tuple[Check, ...]]:
    """The checks of each node, all at the same time; a node that cannot be looked at is one failed check."""
    from korch.client.base import Check

    async def one(name: str) -> tuple[Check, ...]:
        try:
            return await client.check(name)
        except KorchError as error:
            return (Check(error.reason, "fail", str(error), error.hint),)

    wanted = names or await client.node_names()
    return dict(zip(wanted, await asyncio.gather(*(one(name) for name in wanted)), strict=True))


_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def _check_text(found: dict[str, tuple[Check, ...]], *, problems: bool) -> str:
    """A block a node: a line a check, and under what is not in order the cure. Colours vanish without a terminal."""
    from korch.cli.output import clean

    blocks: list[str] = []
    for name, checks in found.items():
        shown = [one for one in checks if not problems or one.result != "ok"]
        width = max((len(one.name) for one in shown), default=0)
        lines = [f"{click.style(name, bold=True)}: {_summary(checks)}"]
        for one in shown:
            word = click.style(one.result.ljust(4), fg=_COLOURS[one.result])
            lines.append(f"  {word}  {one.name.ljust(width)}  {clean(one.detail)}".rstrip())
            if one.result != "ok" and one.cure:
                lines.append(f"{' ' * (width + 10)}-> {clean(one.cure)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) if blocks else "The inventory has no hosts."


def _summary(checks: Sequence[Check]) -> str:
    counts = {word: sum(one.result == word for one in checks) for word in ("ok", "warn", "fail")}
    words = {"ok": "in order", "warn": "to look at", "fail": "failed"}
    return ", ".join(f"{count} {words[word]}" for word, count in counts.items() if count)


def _as_data(found: dict[str, tuple[Check, ...]]) -> list[dict[str, Any]]:
    return [
        {"node": name, "check": one.name, "result": one.result, "detail": one.detail, "cure": one.cure}
        for name, checks in found.items()
        for one in checks
    ]


# --- lost ---


@node.command(
    short_help="Give nodes up: what ran there is replaced elsewhere.",
    epilog=examples(
        "korch node lost n3        # a machine that is gone; a running master replaces its pods at once",
        "korch sync --failover     # the same without a master",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@cluster_options()
def lost(names: tuple[str, ...]) -> None:
    """Say that nodes are gone for good, and the data on them too.

    Their pods are replaced elsewhere without any further question: also those with data there, and also when most nodes
    are lost at once. Should such a node come back, what still runs there is removed first, and it is an ordinary node.
    """

    async def act(client: Client) -> None:
        for name in dict.fromkeys(names):
            click.echo(f"node/{name} {'is given up' if await _give_up(client, name) else 'was given up already'}")

    run(act, need_inventory=False)


async def _give_up(client: Client, name: str) -> bool:
    """Whether that was news. Raises `ForbiddenError` for a node that is Ready."""
    from datetime import UTC, datetime

    from msgspec.structs import replace

    from korch.resources.annotations import NODE_LOST
    from korch.resources.node import Node
    from korch.resources.podstate import condition

    def change(node: Node) -> Node | None:
        ready = condition(node.status.conditions, "Ready")
        if ready is not None and ready.status == "True":
            raise ForbiddenError(
                f"{name} is Ready: it is not lost",
                hint=f"To empty a node that works: korch node drain {name}. To see how it is now: korch nodes."
                " A running master calls one that hangs NotResponding after 15 s.",
            )
        notes = node.metadata.annotations
        if NODE_LOST in notes:
            return None
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return replace(node, metadata=replace(node.metadata, annotations={**notes, NODE_LOST: stamp}))

    before = (await client.get(Node, name, "")).metadata.resource_version
    return (await client.modify(Node, name, "", change)).metadata.resource_version != before


# --- rm ---


@node.command(
    epilog=examples(
        "korch node rm n3                # a host that was taken out of the inventory",
        "korch node rm n3 --force        # its pods too: they are placed elsewhere",
    )
)
@click.argument("name", metavar="NODE")
@click.option("--force", is_flag=True, help="Also when pods are on it: they are deleted, and replaced elsewhere.")
@cluster_options()
def rm(name: str, force: bool) -> None:
    """Forget a node that left the inventory. Its pods are given up with --force only."""

    given_up = run(lambda client: client.forget_node(name, force=force), need_inventory=False)
    more = f", {len(given_up)} pod(s) given up; `korch sync` replaces them" if given_up else ""
    click.echo(f"node/{name} removed{more}")
