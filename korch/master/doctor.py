"""`korch node check`: looks at every precondition on one node. What the findings mean stands in `doctor_checks.py`.

It asks for little: a node that lets nobody in, or that has no engine, gets the checks that can be made.
"""

import asyncio
import getpass
from importlib.resources import files

from korch.client.base import Check
from korch.engines.base import Script
from korch.errors import HostUnreachableError, KorchError
from korch.inventory.hostnames import node_name
from korch.inventory.model import Host
from korch.master import doctor_checks as checks
from korch.master.cluster import Cluster
from korch.master.fleet import CONNECT_S, Fleet
from korch.nodes.answer import Answer, parse_answer
from korch.nodes.machine import Machine
from korch.nodes.report import NodeReport, choose_address
from korch.resources.node import Node, node_address
from korch.resources.workload import Deployment
from korch.ssh.base import Transport

ASKED = 2  # other nodes, whether they reach this one
FORWARD_S = 5.0


async def examine(cluster: Cluster, fleet: Fleet, name: str) -> tuple[Check, ...]:
    """Every precondition on one node, in the order in which they build on each other."""
    return await _Examination(cluster, fleet, fleet.host(name)).run()


class _Examination:
    """One node under examination."""

    def __init__(self, cluster: Cluster, fleet: Fleet, host: Host) -> None:
        self._cluster, self._fleet, self._host = cluster, fleet, host
        self._node = node_name(host.name)
        self._transport: Transport = fleet.transport(self._node)
        self._machine: Machine = fleet.machine(self._node)
        self._ssh_address, self._ssh_port, self._login = "", 22, ""

    async def run(self) -> tuple[Check, ...]:
        """The checks, as far as they can be made."""
        contact = await self._contact()
        if contact[-1].result == "fail":
            return contact
        try:
            report = await self._machine.report(inventory=False, doctor=True)
        except KorchError as error:
            return (*contact, await self._why_silent(error))
        (extra, forwarding, answers), wanted = await asyncio.gather(
            asyncio.gather(self._extra(report), self._forwarding(), self._others(report)), self._wanted_ports()
        )
        address = self._address(report)
        twins = await self._twins(address)
        return (
            *contact,
            checks.program_checks(_lines(extra, "missing")),
            *checks.engine_checks(report, login=self._login, through_sudo=self._through_sudo),
            checks.claim_check(report),
            *(checks.sshd_checks(_settings(extra), forwarding) if self._is_remote else ()),
            *checks.room_checks(report),
            checks.clock_check(report),
            checks.cgroup_check(" ".join(_lines(extra, "cgroup"))),
            checks.port_check(wanted, report, self._cluster.record.id),
            checks.interface_check(report.addresses, address, given=self._host.node_address is not None),
            checks.address_check(address, answers, twins),
        )

    @property
    def _is_remote(self) -> bool:
        return self._host.connection == "ssh"

    @property
    def _through_sudo(self) -> bool:
        return self._machine.become is True and self._login != "root"

    async def _contact(self) -> tuple[Check, ...]:
        if not self._is_remote:
            self._login = getpass.getuser()
            return (checks.ok("reachable", "this machine itself"),)
        user, where, error = self._host.user or "", self._host.address, None
        try:
            options = await self._fleet.connector.options_for(self._host)
            self._ssh_address, self._ssh_port = options.hostname, options.port
            user = self._login = options.user
            where = f"{options.hostname} port {options.port}"
            await self._transport.connect(timeout_s=CONNECT_S)
        except KorchError as found:
            error = found
        return checks.contact_checks(error, where, user)

    async def _why_silent(self, error: KorchError) -> Check:
        """A node that lets us in and gives no report; without base64 nothing of korch can run there."""
        if "base64" in str(error):
            return checks.program_checks(["base64"])
        if isinstance(error, HostUnreachableError):
            return checks.fail("commands", str(error), error.hint or "Try again.")
        return checks.fail("commands", str(error), error.hint or "Log in there by hand and look.")

    async def _extra(self, report: NodeReport) -> Answer:
        """What only the doctor asks, as root where that is possible."""
        become = True if self._through_sudo or (report.uid and report.sudo) else None
        text = (files("korch.master") / "doctor.sh").read_text(encoding="utf-8")
        script = Script(text, (" ".join(checks.PROGRAMS), "1" if self._is_remote else "0"), timeout_s=20.0)
        try:
            return parse_answer((await self._transport.run(script, become=become)).text)
        except KorchError:
            return Answer(())

    async def _forwarding(self) -> str:
        """Through the node to its own sshd: "" when that is allowed, else what happened."""
        return _unless_refused(await self._reach(self._transport, "127.0.0.1", 22))

    async def _reach(self, transport: Transport, address: str, port: int) -> str:
        """How a connection from one node to an address ends: "", or words."""
        try:
            tunnel = await transport.forward(address, port, timeout_s=FORWARD_S)
            await tunnel.close()
        except PermissionError:
            return "forbidden"
        except TimeoutError:
            return f"no answer for {FORWARD_S:.0f} s"
        except (KorchError, OSError) as error:
            return str(error)
        return ""

    def _address(self, report: NodeReport) -> str | None:
        return choose_address(report, self._host, ssh_address=self._ssh_address)

    async def _others(self, report: NodeReport) -> dict[str, str]:
        """What the first nodes that let us in say of reaching this one's node address."""
        address = self._address(report)
        others = [name for name in self._fleet.node_names if name != self._node]
        if address is None:
            return {}
        port = self._ssh_port if address == self._ssh_address else 22

        async def ask(name: str) -> str:
            transport = self._fleet.transport(name)
            await transport.connect(timeout_s=CONNECT_S)
            return _unless_refused(await self._reach(transport, address, port))

        answers: dict[str, str] = {}
        for start in range(0, min(len(others), 3 * ASKED), ASKED):
            names = others[start : start + ASKED]
            results = await asyncio.gather(*(ask(name) for name in names), return_exceptions=True)
            heard = {name: found for name, found in zip(names, results, strict=True) if isinstance(found, str)}
            answers |= {name: text for name, text in heard.items() if text != "forbidden"}
            if len(answers) >= ASKED:
                break
        return answers

    async def _wanted_ports(self) -> dict[int, str]:
        """Fixed node ports of all workloads."""
        found = {}
        for deployment in (await self._cluster.objects.list(Deployment)).items:
            for container in deployment.spec.template.spec.containers:
                for port in container.ports:
                    if port.host_port and (port.protocol or "TCP") == "TCP":
                        found[port.host_port] = deployment.metadata.name
        return found

    async def _twins(self, address: str | None) -> tuple[str, ...]:
        """Other nodes that were last seen with the same node address."""
        nodes = (await self._cluster.objects.list(Node)).items
        return tuple(
            node.metadata.name for node in nodes if node.metadata.name != self._node and node_address(node) == address
        )


def _unless_refused(text: str) -> str:
    """A machine that refuses a port was reached."""
    return "" if "refused" in text.lower() else text


def _lines(answer: Answer, word: str) -> tuple[str, ...]:
    section = answer.first(word)
    return tuple(line for line in section.lines if line) if section else ()


def _settings(answer: Answer) -> dict[str, str] | None:
    if answer.first("sshd") is None:
        return None
    return {key.lower(): value for key, _, value in (line.partition(" ") for line in _lines(answer, "sshd"))}
