"""The report of a node: one round trip's answer, read into a value. Pure."""

import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from korch.engines.errors import explain
from korch.engines.images import ListedImage, go_arch, parse_image_list
from korch.engines.names import volume_of
from korch.engines.observed import ObservedContainer, parse_containers
from korch.engines.wish import EngineName
from korch.inventory.model import Host
from korch.nodes.answer import Answer
from korch.nodes.facts import Facts, NodeIP, cpu_busy, listening_ports, parse_facts, parse_ticks

ReportState = Literal[
    "Ready", "NoPermission", "EngineMissing", "EngineDown", "ClaimedByOther", "DiskPressure", "MemoryPressure"
]

_VIRTUAL = re.compile(r"(docker|br-|cni|podman|veth|virbr|vboxnet|vnet|lxc|lxd|incus|flannel|cali|kube|nerdctl)")
_MIB = 1024 * 1024


def is_virtual(interface: str) -> bool:
    """Whether a network interface is one of those that container engines and hypervisors make for themselves."""
    return _VIRTUAL.match(interface) is not None


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Which cluster acts: its id for good, its name, and the host that its master lives on."""

    id: str
    name: str
    master_host: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Which cluster uses a machine, and where its master lives."""

    id: str
    name: str = ""
    master_host: str = ""


@dataclass(frozen=True, slots=True)
class EngineState:
    """The engine that answers, or why none does."""

    name: EngineName | None = None
    version: str = ""
    data_folder: str = ""
    state: Literal["Ready", "NoPermission", "EngineMissing", "EngineDown"] = "Ready"
    message: str = ""
    hint: str = ""
    said: str = ""  # its own line about itself: a quick look within minutes need not ask again


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Everything one look at a node brought. Times are the node's clock; `state` is a word of the table of states."""

    host: str
    facts: Facts
    engine: EngineState
    arch: str
    cpu_busy: float | None  # None: not measured
    disk_total_bytes: int
    disk_free_bytes: int
    state_root: str  # where korch keeps its files there
    claim: Claim | None = None  # this cluster's
    foreign_claims: tuple[Claim, ...] = ()
    machine_token: str = ""  # two names that show the same are one machine; "" before the first contact
    epoch: int = 0
    containers: tuple[ObservedContainer, ...] = ()  # of every korch cluster
    images: tuple[ListedImage, ...] = ()
    volumes: tuple[str, ...] = ()  # this cluster's named volumes, as NAMESPACE/NAME
    listening_tcp: tuple[int, ...] = ()  # for the doctor alone
    uid: int = 0
    user: str = ""
    sudo: bool | None = None  # None: not asked
    node_time: float = 0.0
    clock_offset_s: float | None = None  # node minus master
    round_trip_s: float = 0.0  # without the time that the node worked
    shared: bool = field(default=False)
    full: bool = True  # images and volumes were looked at

    @property
    def addresses(self) -> tuple[NodeIP, ...]:
        """Addresses of its network interfaces."""
        return self.facts.addresses

    @property
    def image_names(self) -> frozenset[str]:
        """Every name and id by which an image that the node holds can be asked for."""
        return frozenset(name for image in self.images for name in (image.id, *image.names))

    @property
    def clusters_seen(self) -> frozenset[str]:
        """Ids of the clusters that have containers there."""
        return frozenset(c.identity.cluster for c in self.containers if c.identity)

    @property
    def state(self) -> ReportState:
        """The first thing that is wrong, engine before claim before pressure."""
        if self.engine.state != "Ready":
            return self.engine.state
        if self.foreign_claims and self.claim is None and not self.shared:
            return "ClaimedByOther"
        if self.disk_total_bytes and self.disk_free_bytes < min(self.disk_total_bytes // 20, 1024 * _MIB):
            return "DiskPressure"
        total, available = self.facts.memory_total_bytes, self.facts.memory_available_bytes
        if total and available < min(total // 20, 100 * _MIB):
            return "MemoryPressure"
        return "Ready"

    @property
    def message(self) -> str:
        """A sentence on the state; "" when Ready."""
        match self.state:
            case "Ready":
                return ""
            case "ClaimedByOther":
                return claimed_message(self.host, self.foreign_claims[0])
            case "DiskPressure":
                free, total = self.disk_free_bytes // _MIB, self.disk_total_bytes // _MIB
                return (
                    f"{self.host}: {free} MiB of {total} MiB are free in {self.engine.data_folder or 'the data folder'}"
                )
            case "MemoryPressure":
                free, total = self.facts.memory_available_bytes // _MIB, self.facts.memory_total_bytes // _MIB
                return f"{self.host}: {free} MiB of {total} MiB of memory are available"
            case _:
                return f"{self.host}: {self.engine.message}"

    @property
    def hint(self) -> str:
        """What to do about the state; "" when Ready."""
        match self.state:
            case "Ready":
                return ""
            case "ClaimedByOther":
                return CLAIMED_HINT
            case "DiskPressure":
                return "Free some: `korch prune`, or look with `df` and the engine's `system df` on the node."
            case "MemoryPressure":
                return "Stop something there, or give the machine more memory."
            case _:
                return self.engine.hint


CLAIMED_HINT = (
    "Use that cluster (`korch adopt` if its state was lost), remove the node there (`korch node rm`),"
    " or set korch_shared: true for the host."
)


def claimed_message(host: str, claim: Claim) -> str:
    """The sentence for a machine of another cluster."""
    where = f", whose master lives on {claim.master_host}" if claim.master_host else ""
    return f'{host} belongs to the korch cluster "{claim.name or claim.id}"{where}'


def parse_claim(identifier: str, text: str) -> Claim:
    """A claim file's line; a damaged one still tells the cluster's id."""
    try:
        data = json.loads(text)
        return Claim(identifier, str(data.get("name", "")), str(data.get("master", "")))
    except (ValueError, AttributeError):
        return Claim(identifier)


def claim_text(claim: Claim) -> str:
    """The line of a claim file."""
    return json.dumps({"id": claim.id, "name": claim.name, "master": claim.master_host}, separators=(",", ":"))


def parse_report(
    answer: Answer,
    *,
    host: str,
    cluster_id: str,
    asked: tuple[EngineName, ...],
    received_at: float,
    took_s: float,
    shared: bool = False,
) -> NodeReport:
    """The report in the output of report.sh. `received_at` is the master's time, `took_s` how long the call took."""
    facts = parse_facts(_lines(answer, "facts"))
    again = parse_ticks(_lines(answer, "again"))
    node_time, worked_s = _node_times(answer)
    round_trip_s = max(0.0, took_s - worked_s)
    engine = _engine(answer, asked)
    claims = _claims(answer)
    machine = _rest(answer, "machine").split(" ", 2)
    disk = disk_space(_lines(answer, "disk"))
    extra = dict(line.split(" ", 1) for line in _lines(answer, "state") if " " in line)
    sudo = _rest(answer, "sudo")
    return NodeReport(
        host=host,
        facts=facts,
        engine=engine,
        arch=go_arch(machine[0]),
        cpu_busy=cpu_busy(facts.cpu_ticks, again, facts.cpu_count),
        disk_total_bytes=disk[0],
        disk_free_bytes=disk[1],
        state_root=_rest(answer, "state"),
        claim=next((claim for claim in claims if claim.id == cluster_id), None),
        foreign_claims=tuple(claim for claim in claims if claim.id != cluster_id),
        machine_token=extra.get("machine", ""),
        epoch=int(extra["epoch"]) if extra.get("epoch", "").isdecimal() else 0,
        containers=parse_containers("\n".join(_lines(answer, "containers")), node_now=node_time or None),
        images=parse_image_list("\n".join(_lines(answer, "images"))),
        volumes=tuple(sorted(name for line in _lines(answer, "volumes") if (name := volume_of(cluster_id, line)))),
        listening_tcp=listening_ports(_lines(answer, "listening")),
        uid=int(machine[1]) if len(machine) > 1 and machine[1].isdecimal() else 0,
        user=machine[2] if len(machine) > 2 else "",
        sudo=None if not sudo else sudo == "yes",
        node_time=node_time,
        clock_offset_s=node_time - (received_at - round_trip_s / 2) if node_time else None,
        round_trip_s=round_trip_s,
        shared=shared,
        full=answer.first("images") is not None,
    )


def _lines(answer: Answer, word: str) -> tuple[str, ...]:
    section = answer.first(word)
    return section.lines if section else ()


def _rest(answer: Answer, word: str) -> str:
    section = answer.first(word)
    return section.rest if section else ""


def parse_clock(text: str) -> float:
    """Seconds since 1970 of `date +%s.%N`. Busybox has no %N: the middle of the second is then the best guess."""
    match = re.match(r"(\d+)(?:\.(\d{9}))?", text.strip())
    if match is None:
        return 0.0
    return int(match[1]) + (int(match[2]) / 1e9 if match[2] else 0.5)


def _node_times(answer: Answer) -> tuple[float, float]:
    """The node's clock at the end, and how long it worked."""
    began, ended = _rest(answer, "began"), _rest(answer, "ended").split(" ")
    if len(ended) < 2 or not began:
        return 0.0, 0.0
    return parse_clock(ended[1]), max(0.0, float(ended[0]) - float(began))


def _claims(answer: Answer) -> tuple[Claim, ...]:
    """Claims by cluster id: the user's own folder and the machine's can show the same one."""
    found: dict[str, Claim] = {}
    for line in _lines(answer, "state"):
        words = line.split(" ", 2)
        if words[0] == "claim" and len(words) == 3:
            found.setdefault(words[1], parse_claim(words[1], words[2]))
    return tuple(found[key] for key in sorted(found))


def disk_space(lines: Iterable[str]) -> tuple[int, int]:
    """(total, free) bytes of `df -Pk`'s one file system; a device's name may hold spaces."""
    for line in lines:
        match = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%\s", line)
        if match:
            return int(match[1]) * 1024, int(match[3]) * 1024
    return 0, 0


def _engine(answer: Answer, asked: tuple[EngineName, ...]) -> EngineState:
    section = answer.first("engine")
    if section is not None and section.rest in get_args(EngineName):
        return _answering(section.rest, section.text)  # type: ignore[arg-type]
    tried = answer.every("try")
    if not tried:
        names = " and no ".join(name.capitalize() for name in asked)
        hint = "Install one: `korch node prepare NODE`, or `apt-get install docker.io` there."
        return EngineState(state="EngineMissing", message=f"no {names} is installed", hint=hint)
    states = [_silent(section.rest, section.text) for section in tried]
    return next((state for state in states if state.state == "NoPermission"), states[0])


def _answering(name: EngineName, info: str) -> EngineState:
    line = info.split("\n", 1)[0]
    if name == "podman":
        version, folder = line.rpartition(" ")[2], "/var/lib/containers/storage"
        return EngineState("podman", version=version, data_folder=folder, said=line)
    words = line.split("|", 3)
    if len(words) == 4 and "rootless" in words[3]:
        return EngineState(
            "docker", words[0], words[1], "NoPermission", "rootless Docker is not supported", _ROOTLESS_HINT
        )
    return EngineState("docker", words[0], words[1] if len(words) > 1 else "", said=line)


_ROOTLESS_HINT = (
    "Containers of a rootless engine have no address that the machine can reach. "
    "Let korch use the system's engine: sudo without a password (ansible_become: true)."
)


HUNG_HINT = "It may hang: its log on the node tells more."


def _silent(name: str, text: str) -> EngineState:
    engine: EngineName = "podman" if name == "podman" else "docker"
    if text.strip() == "rootless":
        return EngineState(
            "podman", state="NoPermission", message="rootless Podman is not supported", hint=_ROOTLESS_HINT
        )
    if not text.strip(" |\n"):  # each program that was asked has run into its deadline
        return EngineState(engine, "", "", "EngineDown", f"{engine} did not answer within 20 s", HUNG_HINT)
    meaning = explain(text, step="look", engine=engine)
    return EngineState(engine, "", "", meaning.node_state or "EngineDown", meaning.message, meaning.hint)


def choose_address(report: NodeReport, host: Host, *, ssh_address: str = "") -> str | None:
    """The node address, where published ports bind and others connect; None when it is not clear (AddressUnknown).

    The inventory's `korch_address`; else the inventory's address (or `ssh_address`, what its name stands for) if an
    interface has it; else the one private address that is not on the default route's interface, as Vagrant's
    private_network is. The master's own machine (`connection: local`) falls back to its default route's address.
    """
    if host.node_address:
        return host.node_address
    own = {str(_ip(ip.address)) for ip in report.addresses}
    for candidate in (host.address, ssh_address):
        if (address := _ip(candidate)) and not address.is_loopback and str(address) in own:
            return str(address)
    real = [ip for ip in report.addresses if not _VIRTUAL.match(ip.interface) and _is_v4(ip.address)]
    private = [ip.address for ip in real if not ip.default_route and ipaddress.ip_address(ip.address).is_private]
    if len(private) == 1:
        return private[0]
    if host.connection == "local":
        return next((ip.address for ip in real if ip.default_route), None)
    return None


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _is_v4(text: str) -> bool:
    return isinstance(_ip(text), ipaddress.IPv4Address)
