"""What the doctor's findings mean: each precondition as ok, warn or fail, with a cure. Pure."""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence

from korch.client.base import Check
from korch.errors import (
    AuthFailedError,
    HostKeyChangedError,
    HostKeyRevokedError,
    HostKeyUnknownError,
    KorchError,
    NoCommonAlgorithmError,
)
from korch.nodes.facts import NodeIP
from korch.nodes.report import NodeReport, is_virtual

_MIB = 1024 * 1024
LEAST_SESSIONS = 2  # korch's session and one command on one connection
WANTED_SESSIONS = 7  # and six commands at once
LEAST_STARTUPS = 4  # a control connection, one for streams, and a person
OLDEST = {"docker": (20, 10), "podman": (4, 0)}
PROGRAMS = (
    *("base64", "cat", "chmod", "date", "dd", "df", "grep", "head", "id", "ln", "mkdir", "mktemp", "mv", "rm", "rmdir"),
    *("sleep", "sort", "sync", "tail", "timeout", "tr", "uname", "flock", "readlink"),
)
OPTIONAL = {
    "flock": "korch queues with files instead, which is slower",
    "readlink": "what Podman has fetched of a pull that is ended stays on the disk",
}


def ok(name: str, detail: str) -> Check:
    """In order."""
    return Check(name, "ok", detail)


def warn(name: str, detail: str, cure: str) -> Check:
    """Works, and will bite some day."""
    return Check(name, "warn", detail, cure)


def fail(name: str, detail: str, cure: str) -> Check:
    """korch cannot work there, or not as told."""
    return Check(name, "fail", detail, cure)


def contact_checks(error: KorchError | None, where: str, user: str) -> tuple[Check, ...]:
    """Reachable, algorithms, host key, login: how far the connection came."""
    if error is None:
        return (ok("reachable", where), ok("host key", "known and the same"), ok("login", f"as {user}"))
    failed = str(error)
    if isinstance(error, HostKeyUnknownError | HostKeyChangedError | HostKeyRevokedError):
        return (ok("reachable", where), fail("host key", failed, error.hint))
    if isinstance(error, NoCommonAlgorithmError):
        return (ok("reachable", where), fail("algorithms", failed, error.hint))
    if isinstance(error, AuthFailedError):
        return (ok("reachable", where), ok("host key", "known and the same"), fail("login", failed, error.hint))
    return (fail("reachable", failed, error.hint),)


def engine_checks(report: NodeReport, *, login: str, through_sudo: bool = False) -> tuple[Check, ...]:
    """The engine, the rights on it of the user who logs in, sudo. `through_sudo`: the report was made as root."""
    engine, who = report.engine, login or report.user or "the user"
    sudo = ok("sudo", "without a password") if through_sudo else _sudo(report)
    if engine.state == "EngineMissing":
        return (fail("engine", engine.message, engine.hint), sudo)
    if engine.state == "EngineDown":
        return (fail("engine", f"{engine.name}: {engine.message}", engine.hint), sudo)
    if engine.state == "NoPermission":
        return (fail("rights", f"{who}: {engine.message}", engine.hint), sudo)
    through = " through sudo" if through_sudo else ""
    return (_version(engine.name or "", engine.version), ok("rights", f"{who} may use it{through}"), sudo)


def _version(name: str, version: str) -> Check:
    numbers = tuple(int(word) for word in re.findall(r"\d+", version)[:2])
    text = f"{name} {version}".strip()
    oldest = OLDEST.get(name)
    if oldest is not None and numbers and numbers < oldest:
        wanted = ".".join(map(str, oldest))
        return warn("engine", f"{text} is older than what korch is tested with", f"Upgrade it to {wanted} or newer.")
    return ok("engine", text)


def _sudo(report: NodeReport) -> Check:
    if report.uid == 0:
        return ok("sudo", "not needed: root")
    if report.sudo:
        return ok("sudo", "without a password")
    if report.engine.state == "Ready":
        return ok("sudo", "not needed: the user may use the engine")
    cure = "`USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d/korch; `korch node prepare` does that."
    return warn("sudo", "asks for a password, or is not there", cure)


def claim_check(report: NodeReport) -> Check:
    """Whose node it is."""
    if report.state == "ClaimedByOther":
        return fail("claim", report.message, report.hint)
    others = ", ".join(claim.name or claim.id for claim in report.foreign_claims)
    shared = f"; shared with {others}" if others else ""
    return ok("claim", ("this cluster's" if report.claim else "nobody's yet") + shared)


def room_checks(report: NodeReport) -> tuple[Check, ...]:
    """Disk and memory."""
    free, total = report.disk_free_bytes, report.disk_total_bytes
    memory, all_memory = report.facts.memory_available_bytes, report.facts.memory_total_bytes
    where = report.engine.data_folder or "/var/lib"
    return (
        _room("disk", free, total, f"free in {where}", "`korch prune`, or `docker system df` there, shows what goes."),
        _room("memory", memory, all_memory, "available", "Stop something there, or give the machine more memory."),
    )


def _room(name: str, free: int, total: int, what: str, cure: str) -> Check:
    if not total:
        return warn(name, "not known", "Look at it by hand.")
    text = f"{_size(free)} of {_size(total)} {what}"
    least = 1024 * _MIB if name == "disk" else 100 * _MIB
    if free < min(total // 20, least):
        return fail(name, f"{text}: it takes no new pods", cure)
    return warn(name, text, cure) if free < total // 10 else ok(name, text)


def _size(count: int) -> str:
    return f"{count / (1024 * _MIB):.1f} GiB" if count >= 1024 * _MIB else f"{count // _MIB} MiB"


def clock_check(report: NodeReport) -> Check:
    """The node's clock against this machine's. korch never compares them; people who read logs do."""
    offset = report.clock_offset_s
    if offset is None:
        return warn("clock", "not known", "Is there a `date` on the node?")
    if abs(offset) <= 2.0:
        return ok("clock", f"{offset:+.1f} s")
    words = f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine"
    return warn("clock", words, "Let it keep time: `apt-get install systemd-timesyncd` (or chrony).")


def program_checks(missing: Collection[str]) -> Check:
    """What korch's scripts call there."""
    needed = sorted(set(missing) - OPTIONAL.keys())
    if needed:
        return fail(
            "programs", f"{', '.join(needed)}: not there", "Install coreutils, or a busybox with these applets."
        )
    optional = sorted(set(missing) & OPTIONAL.keys())
    if optional:
        told = "; ".join(f"{name} is not there: {OPTIONAL[name]}" for name in optional)
        return warn("programs", told, "Install coreutils and util-linux, or a busybox with that applet.")
    return ok("programs", f"all {len(PROGRAMS)} that are needed")


def cgroup_check(text: str) -> Check:
    """Whether limits can be kept. `text`: version, then controllers."""
    version, *controllers = text.split() or ["?"]
    if version == "?":
        return warn("cgroup", "not known", "Are /proc and /sys mounted?")
    lacking = [name for name in ("cpu", "memory") if name not in controllers]
    if lacking:
        cure = "Boot with cgroup_enable=memory cgroup_memory=1 (Raspberry Pi: in cmdline.txt)."
        return warn("cgroup", f"{version}, without {' and '.join(lacking)}: such limits have no effect", cure)
    return ok("cgroup", version)


def sshd_checks(settings: Mapping[str, str] | None, forwarding: str) -> tuple[Check, ...]:
    """sshd's limits as `sshd -T` tells them (None: not readable), and whether a forwarding worked.

    `forwarding`: "" when it did, "forbidden", or what else happened.
    """
    return (_forwarding(settings, forwarding), *_limits(settings))


def _forwarding(settings: Mapping[str, str] | None, forwarding: str) -> Check:
    cure = "AllowTcpForwarding yes (or local) in /etc/ssh/sshd_config, then `systemctl reload ssh`."
    if not forwarding:
        return ok("forwarding", "allowed")
    if forwarding == "forbidden":
        told = (settings or {}).get("allowtcpforwarding", "")
        why = f" (AllowTcpForwarding {told})" if told and told != "yes" else ""
        text = f"sshd forbids it{why}: HTTP and TCP checks fail, exec checks work"
        return warn("forwarding", text, cure)
    return warn("forwarding", forwarding, cure)


def _limits(settings: Mapping[str, str] | None) -> tuple[Check, ...]:
    if settings is None:
        return (ok("sshd limits", "not readable for this user: sshd's defaults are assumed, they suffice"),)
    sessions, startups = settings.get("maxsessions", "?"), settings.get("maxstartups", "?")
    cure = "{} in /etc/ssh/sshd_config, then `systemctl reload ssh`."
    first = startups.partition(":")[0]
    checks = [ok("MaxSessions", sessions), ok("MaxStartups", startups)]
    if sessions.isdigit() and int(sessions) < LEAST_SESSIONS:
        text = f"{sessions}: korch needs {LEAST_SESSIONS} on one connection"
        checks[0] = fail("MaxSessions", text, cure.format("MaxSessions 10"))
    elif sessions.isdigit() and int(sessions) < WANTED_SESSIONS:
        text = f"{sessions}: fewer commands at a time than the {WANTED_SESSIONS} sessions that korch would use"
        checks[0] = warn("MaxSessions", text, cure.format("MaxSessions 10"))
    if first.isdigit() and int(first) < LEAST_STARTUPS:
        text = f"{startups}: sshd drops connections that are made at the same time"
        checks[1] = warn("MaxStartups", text, cure.format("MaxStartups 10:30:100"))
    return tuple(checks)


def port_check(wanted: Mapping[int, str], report: NodeReport, cluster_id: str) -> Check:
    """Node ports that workloads ask for (port to workload) against what listens there already."""
    own = {
        port.host_port
        for found in report.containers
        if found.identity is not None and found.identity.cluster == cluster_id
        for port in found.ports
        if port.protocol == "tcp"
    }
    taken = sorted(port for port in wanted if port in report.listening_tcp and port not in own)
    if taken:
        told = ", ".join(f"{port} ({wanted[port]})" for port in taken)
        cure = "Stop what listens there (`ss -ltnp`), publish another port, or keep the app off: --node-selector."
        return warn("ports", f"taken by something else: {told}", cure)
    fixed = f"{len(wanted)} fixed by workloads, none taken by others" if wanted else "none fixed by workloads"
    return ok("ports", f"{len(own)} published here; {fixed}")


def interface_check(addresses: Sequence[NodeIP], chosen: str | None, *, given: bool) -> Check:
    """Which address others use, when the machine has several (as Vagrant's have)."""
    real = [ip for ip in addresses if not is_virtual(ip.interface) and ":" not in ip.address]
    told = ", ".join(f"{ip.address}{f' ({ip.interface})' if ip.interface else ''}" for ip in real) or "none"
    cure = "Set korch_address for the host in the inventory to the address that the other nodes reach."
    if chosen is None:
        return fail("interfaces", f"which of these others can reach is not clear: {told}", cure)
    if not given and _is_nat(chosen):
        return warn("interfaces", f"{chosen} looks like Vagrant's NAT, which other nodes cannot reach ({told})", cure)
    if given and chosen not in {ip.address for ip in addresses}:
        return fail("interfaces", f"korch_address {chosen} is on none of its interfaces ({told})", cure)
    return ok("interfaces", told)


def _is_nat(address: str) -> bool:
    """VirtualBox gives every machine 10.0.2.15 behind a NAT of its own (VirtualBox manual, chapter 6.3)."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network("10.0.2.0/24")
    except ValueError:
        return False


def address_check(address: str | None, answers: Mapping[str, str], twins: Sequence[str] = ()) -> Check:
    """Whether others reach the node address. `answers`: node to "" or words. `twins`: nodes that claim it too."""
    if address is None:
        return fail("address", "not known", "Set korch_address for the host in the inventory.")
    if twins:
        told = f"{address} is also the address of {', '.join(sorted(twins))}"
        return fail("address", told, "Set korch_address for both in the inventory, or give one another address.")
    if not answers:
        return ok("address", f"{address} (there is no other node to ask)")
    failed = {name: text for name, text in sorted(answers.items()) if text}
    asked = ", ".join(sorted(answers))
    if not failed:
        return ok("address", f"{address}, reached by {asked}")
    told = "; ".join(f"{name}: {text}" for name, text in failed.items())
    cure = "Check routes and firewalls between the nodes, or set korch_address to an address that they reach."
    return (fail if len(failed) == len(answers) else warn)("address", f"{address} is not reached by {told}", cure)
