"""`korch lab`: real SSH hosts on this machine, to try korch on and to break."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from korch.cli.base import examples

if TYPE_CHECKING:  # the lab itself is imported when a command runs: `korch --help` must not pay for it
    from korch.lab.lab import Lab
    from korch.lab.spec import LabStatus

_NAME = "korch.lab.name"  # key in the context's meta, which sub-commands share


@click.group(
    epilog=examples(
        "korch lab up                    # three nodes with Docker: n1, n2, n3",
        "korch nodes -i lab",
        "korch lab kill n1               # power off; `korch lab start n1` is power on",
        "korch lab --name other up --nodes 2 --engine podman",
        "korch lab down",
    )
)
@click.option("--name", default="lab", show_default=True, help="Which lab; several may be up side by side.")
@click.pass_context
def lab(context: click.Context, name: str) -> None:
    """Make real SSH hosts on this Linux machine (as root), and break them."""
    context.meta[_NAME] = name


def _lab() -> Lab:
    from korch.lab.lab import Lab

    return Lab(str(click.get_current_context().meta[_NAME]))


@lab.command(
    short_help="Bring up exactly these nodes.",
    epilog=examples("korch lab up", "korch lab up --nodes 5 --engine podman --cpus 0.5 --memory 512M"),
)
@click.option(
    "--nodes", default=3, show_default=True, type=click.IntRange(min=0), help="Nodes with an engine: n1, n2, ..."
)
@click.option(
    "--engine",
    default="docker",
    show_default=True,
    type=click.Choice(["docker", "podman"]),
    help="Of these and of the busybox nodes.",
)
@click.option("--sshd-only", default=0, type=click.IntRange(min=0), help="Further nodes without an engine: s1, s2, ...")
@click.option(
    "--busybox", default=0, type=click.IntRange(min=0), help="Further nodes with busybox and the engine only: b1, ..."
)
@click.option("--cpus", default=1.0, show_default=True, help="CPUs of each node.")
@click.option("--memory", default="1024M", show_default=True, help="Memory of each node.")
def up(nodes: int, engine: str, sshd_only: int, busybox: int, cpus: float, memory: str) -> None:
    """Bring up exactly these nodes; what runs already is kept, what is dead is started."""
    from korch.lab.spec import node_specs

    wanted = node_specs(nodes=nodes, engine=engine, sshd_only=sshd_only, busybox=busybox, cpus=cpus, memory=memory)
    _show(_lab().up(wanted))


@lab.command(epilog=examples("korch lab status -o json"))
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of output."
)
def status(output: str) -> None:
    """Show the nodes, the inventory and the sample image."""
    found = _lab().status()
    if output == "json":
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found)


@lab.command(epilog=examples("korch lab down"))
def down() -> None:
    """Remove every trace of the lab, also after a crash."""
    target = _lab()
    target.down()
    click.echo(f'lab "{target.name}" is gone')


def _show(found: LabStatus) -> None:
    width = max(4, *(len(node.name) for node in found.nodes))
    click.echo(f"{'NODE':<{width}}  {'ADDRESS':<15}  {'ENGINE':<6}  STATE")
    for node in found.nodes:
        click.echo(f"{node.name:<{width}}  {node.address:<15}  {node.engine:<6}  {node.state}")
    click.echo(f"\ninventory     {found.inventory}\nsample image  {found.image}")


def _simple(name: str, deed: Callable[[Lab, str], None], done: str, text: str) -> None:
    """A command that takes node names and does one thing to each."""

    @lab.command(name, help=text, epilog=examples(f"korch lab {name} n1 n2"))
    @click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
    def command(nodes: tuple[str, ...]) -> None:
        target = _lab()
        for node in nodes:
            deed(target, node)
            click.echo(f"{node} {done}")


_simple("kill", lambda target, node: target.kill(node), "is off", "Power nodes off, without a goodbye.")
_simple("start", lambda target, node: target.start(node), "is running", "Power nodes on again, with their disks.")
_simple("pause", lambda target, node: target.pause(node), "is paused", "Freeze every process of nodes.")
_simple("resume", lambda target, node: target.resume(node), "goes on", "End a pause.")
_simple("heal", lambda target, node: target.heal(node), "is healed", "End partition, delay and loss.")


@lab.command(epilog=examples("korch lab partition n1", "korch lab partition n1 --from n2 --from n3"))
@click.argument("node")
@click.option("--from", "peers", multiple=True, metavar="PEER", help="Cut off from these nodes (or `host`) only.")
def partition(node: str, peers: tuple[str, ...]) -> None:
    """Cut a node off the network."""
    _lab().partition(node, peers)
    click.echo(f"{node} is cut off" + (f" from {', '.join(peers)}" if peers else ""))


@lab.command(epilog=examples("korch lab delay n1 100 --jitter 20"))
@click.argument("node")
@click.argument("milliseconds", type=click.FloatRange(min=0))
@click.option("--jitter", default=0.0, type=click.FloatRange(min=0), help="Give or take so many milliseconds.")
def delay(node: str, milliseconds: float, jitter: float) -> None:
    """Make each packet later, in each direction; 0 ends it."""
    _lab().delay(node, milliseconds, jitter)
    click.echo(f"{node}: {milliseconds:g} ms more each way")


@lab.command(short_help="Lose a share of a node's packets.", epilog=examples("korch lab loss n1 20"))
@click.argument("node")
@click.argument("percent", type=click.FloatRange(0, 100))
def loss(node: str, percent: float) -> None:
    """Lose that share of a node's packets, in each direction; 0 ends it."""
    _lab().loss(node, percent)
    click.echo(f"{node}: {percent:g} % of the packets are lost")


@lab.command("fill-disk", epilog=examples("korch lab fill-disk n1", "korch lab fill-disk n1 --undo"))
@click.argument("node")
@click.option("--undo", is_flag=True, help="Give the space back.")
def fill_disk(node: str, undo: bool) -> None:
    """Fill the disk that the node's engine writes to."""
    target = _lab()
    if undo:
        target.free_disk(node)
    else:
        target.fill_disk(node)
    click.echo(f"{node}: the disk {'has room again' if undo else 'is full'}")


@lab.command(epilog=examples("korch lab burn n1 --tasks 2 --seconds 300", "korch lab burn n1 --undo"))
@click.argument("node")
@click.option("--tasks", default=3, show_default=True, type=click.IntRange(1, 64), help="Busy loops.")
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(1, 86400), help="How long.")
@click.option("--undo", is_flag=True, help="End the busy loops now.")
def burn(node: str, tasks: int, seconds: int, undo: bool) -> None:
    """Keep a node's CPUs busy for a while."""
    target = _lab()
    if undo:
        target.stop_burning(node)
        click.echo(f"{node}: quiet again")
    else:
        target.burn(node, tasks, seconds)
        click.echo(f"{node}: {tasks} busy loops for {seconds} s")
