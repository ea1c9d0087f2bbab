"""Other nodes' word on a silent one: where they are asked to reach it, and whose word counts.

A witness opens a TCP connection to the *node address* (sshd there, and ports that pods publish), never to the address
that the master's SSH uses: behind Vagrant's forwarded port that would be the witness itself. "I cannot reach it" means
something only from a node that reached the same place while all was well, so that is tried now and then.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from korch.engines.base import Command
from korch.errors import KorchError
from korch.master.fleet import Fleet
from korch.nodes.life import OPINIONS
from korch.resources.node import Node, node_address
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted, published_of
from korch.ssh.base import Transport

ANSWER_S = 5.0  # for a witness to reach it, and to show that it can be heard itself
PORTS_ASKED = 3
SSHD = 22
TRY_EVERY_S = 240.0  # while enough witnesses are known
TRY_AGAIN_S = 30.0  # while there are none
TRIED = 4  # other nodes in that time


class Target(msgspec.Struct, frozen=True, order=True):
    """A place where a node is reached. `own`: its sshd, and not a port of a pod."""

    address: str
    port: int
    own: bool = True


async def targets_of(name: str, fleet: Fleet, node: Node | None, pods: Iterable[Pod]) -> tuple[Target, ...]:
    """Where other nodes may reach it; nothing when its address is not known."""
    try:
        options = await fleet.connector.options_for(fleet.host(name))
        hostname, port = options.hostname, options.port
    except KorchError:
        hostname, port = "", SSHD
    address = node_address(node) or hostname
    ports = sorted({port, SSHD}, key=lambda found: found != port) if node_address(node) != hostname else [port]
    own = [Target(address, found) for found in ports]
    return tuple(found for found in (*own, *_published(pods, name, address)) if is_elsewhere(found.address))


def is_elsewhere(address: str) -> bool:
    """Whether an address may mean the same machine to others; loopback and "any" mean whoever asks."""
    try:
        ip = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return bool(address) and address.partition(".")[0] != "localhost"
    return not (ip.is_loopback or ip.is_unspecified)


def _published(pods: Iterable[Pod], node: str, address: str) -> list[Target]:
    """Some TCP ports of its pods, as last seen (free ones are the engine's choice), or as wished."""
    found: set[Target] = set()
    for pod in pods:
        if pod.spec.node_name != node or not is_counted(pod):
            continue
        ports = published_of(pod) or tuple(port for one in pod.spec.containers for port in one.ports)
        for port in ports:
            if port.host_port and port.protocol in {"", "TCP"}:
                own = port.host_ip if port.host_ip not in {"", "0.0.0.0", "::"} else pod.status.host_ip or address  # noqa: S104
                found.add(Target(own, port.host_port, own=False))
    return sorted(one for one in found if is_elsewhere(one.address))[:PORTS_ASKED]


class Witnesses:
    """Who reached whom while all was well, as far as this term has tried. Times are the caller's."""

    def __init__(self) -> None:
        self._tried: dict[str, dict[str, tuple[float, frozenset[Target]]]] = {}  # by node, by witness

    def is_due(self, node: str, now: float) -> bool:
        """Whether others should be asked now whether they reach this node, which is well: seldom, and few."""
        tried = self._tried.get(node, {})
        every_s = TRY_EVERY_S if any(reached for _, reached in tried.values()) else TRY_AGAIN_S
        lately = [reached for at, reached in tried.values() if now - at < every_s]
        return sum(map(bool, lately)) < OPINIONS and len(lately) < TRIED

    def to_try(self, node: str, heard: Sequence[str], now: float) -> tuple[str, ...]:
        """Whom to ask then: those who were not asked for the longest time, from the node's neighbours on."""
        tried = self._tried.get(node, {})
        after = [other for other in heard if other > node] + [other for other in heard if other < node]
        fresh = [other for other in after if now - tried.get(other, (float("-inf"),))[0] >= TRY_AGAIN_S]
        return tuple(sorted(fresh, key=lambda other: not self._reached(node, other))[:OPINIONS])

    def learn(self, node: str, witness: str, reached: Collection[Target], now: float) -> None:
        """What a witness reached of a node that was well before and after."""
        self._tried.setdefault(node, {})[witness] = (now, frozenset(reached))

    def forget(self, node: str) -> None:
        """It is watched no more."""
        self._tried.pop(node, None)
        for tried in self._tried.values():
            tried.pop(node, None)

    def counts(self, node: str, witness: str, target: Target) -> bool:
        """Whether the witness would reach this target if the node were well.

        Of a node that was never well in this term nobody knows that: then it counts who reaches the sshd of others.
        """
        if node in self._tried:
            return target in self._reached(node, witness)
        return target.own and any(found.own for other in self._tried for found in self._reached(other, witness))

    def in_order(self, node: str, heard: Sequence[str]) -> list[str]:
        """Those who can tell first."""
        return sorted(heard, key=lambda other: (not self._reached(node, other), other))

    def _reached(self, node: str, witness: str) -> frozenset[Target]:
        return self._tried.get(node, {}).get(witness, (0.0, frozenset[Target]()))[1]


async def opinions_on(
    fleet: Fleet,
    witnesses: Sequence[str],
    targets: Sequence[Target],
    *,
    counts: Callable[[str, Target], bool] = lambda _witness, _target: True,
    answer_s: float = ANSWER_S,
) -> dict[str, bool]:
    """Witness → whether it gets a connection to one of the targets, of the first two that can tell.

    That it gets none is its word only where it `counts` for one of the targets.
    """
    waiting = list(witnesses)
    found: dict[str, bool] = {}
    while waiting and targets and len(found) < OPINIONS:
        asked = [waiting.pop(0) for _ in range(min(OPINIONS - len(found), len(waiting)))]
        answers = await asyncio.gather(*(what_reaches(fleet.transport(one), targets, answer_s) for one in asked))
        for witness, said in zip(asked, answers, strict=True):
            if True in said.values():
                found[witness] = True
            elif any(answer is False and counts(witness, target) for target, answer in said.items()):
                found[witness] = False
    return found


async def what_reaches(witness: Transport, targets: Sequence[Target], answer_s: float) -> dict[Target, bool | None]:
    """Target → whether it answers the witness; None when that cannot be told."""
    answers = await asyncio.gather(*(_reaches(witness, target, answer_s) for target in targets))
    return dict(zip(targets, answers, strict=True))


async def _reaches(witness: Transport, target: Target, answer_s: float) -> bool | None:
    """Whether a TCP connection from the witness is accepted; None when it cannot tell.

    An sshd that forbids forwarding has no opinion, and silence counts only while the witness itself is heard.
    """
    try:
        tunnel = await witness.forward(target.address, target.port, timeout_s=answer_s)
        await tunnel.close()
    except (PermissionError, KorchError):
        return None
    except TimeoutError:
        return False if await _is_heard(witness, answer_s) else None
    except OSError:
        return False
    return True


async def _is_heard(witness: Transport, answer_s: float) -> bool:
    try:
        async with asyncio.timeout(answer_s):
            return (await witness.run(Command(("true",), timeout_s=answer_s))).status == 0
    except (KorchError, OSError):
        return False
