"""The lab's network: a bridge on this machine, and a namespace with one cable for each node. All through `ip`."""

import json
import re
from ipaddress import IPv4Network
from pathlib import Path

from korch.errors import SetupError
from korch.lab.machine import run, succeeds
from korch.lab.spec import Names


def choose_subnet(names: Names, before: str | None = None) -> str:
    """The lab's network without its last octet: the one its bridge has, else the one before, else a free one."""
    used = used_networks()
    if names.bridge in used:
        return str(used[names.bridge][0].network_address).rsplit(".", 1)[0]
    others = [network for networks in used.values() for network in networks]
    for prefix in ((before,) if before else ()) + names.subnet_candidates():
        if not any(network.overlaps(IPv4Network(f"{prefix}.0/24")) for network in others):
            return prefix
    raise SetupError(
        f'lab "{names.lab}": the network {names.subnet_candidates()[0]}.0/24 is taken on this machine',
        hint="See `ip -4 addr`; remove what uses it.",
    )


def used_networks() -> dict[str, list[IPv4Network]]:
    """The IPv4 networks that this machine's links have, by link."""
    found: dict[str, list[IPv4Network]] = {}
    for link in json.loads(run("ip", "-j", "-4", "addr", "show") or "[]"):
        for address in link.get("addr_info", ()):
            text = f"{address['local']}/{address['prefixlen']}"
            found.setdefault(link["ifname"], []).append(IPv4Network(text, strict=False))
    return found


def links() -> tuple[str, ...]:
    """Names of this machine's links."""
    return tuple(sorted(path.name for path in Path("/sys/class/net").iterdir()))


def namespaces() -> tuple[str, ...]:
    """Names of this machine's named network namespaces."""
    folder = Path("/run/netns")
    return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()


def make_bridge(names: Names, prefix: str) -> None:
    """The bridge, up, with the first address of the lab's network; nothing when it is there."""
    if names.bridge in links():
        return
    commands = [
        # An address of its own: else it takes that of a port, and changes with them, which nodes notice too late.
        f"link add name {names.bridge} address {names.mac(1)} type bridge",
        f"link set {names.bridge} addrgenmode none",
        f"addr add {prefix}.1/24 dev {names.bridge}",
        f"link set {names.bridge} up",
    ]
    batch(commands)


def plug(names: Names, node: str, number: int, prefix: str) -> None:
    """A fresh network namespace for the node with its cable in the bridge. What was there under these names goes."""
    unplug(names, node, number)
    netns, link = names.netns(node), names.link(number)
    run("ip", "netns", "add", netns)
    batch(
        [
            f"link add {link} type veth peer name eth0 address {names.mac(number)} netns {netns}",
            f"link set {link} addrgenmode none",
            f"link set {link} master {names.bridge} up",
        ]
    )
    inside = [
        "link set lo up",
        "link set eth0 addrgenmode none",
        f"addr add {prefix}.{number}/24 dev eth0",
        "link set eth0 up",
    ]
    batch(inside, netns=netns)


def unplug(names: Names, node: str, number: int | None) -> None:
    """Remove a node's namespace and cable, if they are there."""
    if number is not None:
        for link in (names.tap(number), names.link(number)):
            if (Path("/sys/class/net") / link).exists():
                succeeds("ip", "link", "del", link)
    remove_namespace(names.netns(node))


def remove_namespace(netns: str) -> None:
    """Remove a named network namespace, if it is there; a file that a crash left half made goes too."""
    path = Path("/run/netns") / netns
    if path.exists() and not succeeds("ip", "netns", "del", netns):
        succeeds("umount", "-l", str(path))
        path.unlink(missing_ok=True)


def set_cable(names: Names, number: int, *, up: bool) -> None:
    """Connect or cut a node's cable."""
    link = names.link(number)
    if (Path("/sys/class/net") / link).exists():
        run("ip", "link", "set", link, "up" if up else "down")


def cable_is_up(names: Names, number: int) -> bool:
    """Whether a node's cable is connected."""
    try:
        flags = int((Path("/sys/class/net") / names.link(number) / "flags").read_text(), 16)
    except OSError:
        return False
    return bool(flags & 1)  # IFF_UP


def remove_all(names: Names) -> None:
    """Remove every namespace and link whose name is the lab's."""
    for netns in namespaces():
        if netns.rpartition("-")[0] == names.prefix:
            remove_namespace(netns)
    mine = re.compile(rf"{re.escape(names.link_prefix)}(-|w)[0-9]+")
    for link in links():
        if mine.fullmatch(link):
            succeeds("ip", "link", "del", link)
    if names.bridge in links():
        succeeds("ip", "link", "del", names.bridge)


def batch(commands: list[str], *, netns: str | None = None) -> None:
    """Run several `ip` commands in one process, in a namespace when one is named."""
    where = ("-n", netns) if netns else ()
    run("ip", *where, "-batch", "-", stdin="\n".join(commands) + "\n")
