"""What a machine says of itself, read from its /proc: no program but `grep` is needed there. Pure."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_KIB = 1024
_TICKS_PER_S = 100  # USER_HZ: what /proc/stat counts in, on every Linux that matters
_LEAST_SAMPLE_S = 0.5


@dataclass(frozen=True, slots=True)
class NodeIP:
    """An address of a network interface; `interface` "" when no route tells. Without loopback and link-local ones."""

    address: str
    interface: str
    default_route: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """A machine's numbers. Ratios are 0..1 of the whole machine; None where the kernel does not tell."""

    load: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cpu_count: int = 1
    cpu_ticks: tuple[int, int] | None = None  # (busy, total) since boot, over all CPUs
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    pressure_cpu: float | None = None
    pressure_memory: float | None = None
    pressure_io: float | None = None
    uptime_s: float = 0.0
    hostname: str = ""
    kernel: str = ""
    boot_id: str = ""
    machine_id: str = ""
    os_image: str = ""
    addresses: tuple[NodeIP, ...] = ()


def parse_facts(lines: Iterable[str]) -> Facts:
    """Facts from lines as `grep` prints them: `FILE:LINE`."""
    by_file: dict[str, list[str]] = {}
    for line in lines:
        path, colon, rest = line.partition(":")
        if colon and path.startswith("/"):
            by_file.setdefault(path, []).append(rest)
    memory = _meminfo(by_file.get("/proc/meminfo", ()))
    load = [float(word) for word in _one(by_file, "/proc/loadavg").split()[:3]]
    return Facts(
        load=(load[0], load[1], load[2]) if len(load) == 3 else (0.0, 0.0, 0.0),
        cpu_count=max(1, sum(1 for line in by_file.get("/proc/stat", ()) if re.match(r"cpu\d", line))),
        cpu_ticks=parse_ticks(by_file.get("/proc/stat", ())),
        memory_total_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=_available(memory),
        pressure_cpu=_pressure(by_file.get("/proc/pressure/cpu", ())),
        pressure_memory=_pressure(by_file.get("/proc/pressure/memory", ())),
        pressure_io=_pressure(by_file.get("/proc/pressure/io", ())),
        uptime_s=float((_one(by_file, "/proc/uptime").split() or ["0"])[0]),
        hostname=_one(by_file, "/proc/sys/kernel/hostname"),
        kernel=_one(by_file, "/proc/sys/kernel/osrelease"),
        boot_id=_one(by_file, "/proc/sys/kernel/random/boot_id"),
        machine_id=_one(by_file, "/etc/machine-id"),
        os_image=_os_image(by_file.get("/etc/os-release", ())),
        addresses=_addresses(by_file),
    )


def parse_ticks(lines: Iterable[str]) -> tuple[int, int] | None:
    """(busy, total) of the `cpu` line of /proc/stat. Stolen time is busy: it is not there for anyone here (proc(5))."""
    for line in lines:
        words = line.rpartition(":")[2].split()
        if words and words[0] == "cpu" and len(words) >= 5:
            numbers = [int(word) for word in words[1:9]]
            idle = numbers[3] + (numbers[4] if len(numbers) > 4 else 0)
            return sum(numbers) - idle, sum(numbers)
    return None


def cpu_busy(before: tuple[int, int] | None, after: tuple[int, int] | None, cpu_count: int) -> float | None:
    """The busy share between two readings, or None when they are less than half a second apart or over a reboot."""
    if before is None or after is None:
        return None
    busy, total = after[0] - before[0], after[1] - before[1]
    if total < _LEAST_SAMPLE_S * _TICKS_PER_S * cpu_count * 0.9 or busy < 0:
        return None
    return min(1.0, busy / total)


def listening_ports(lines: Iterable[str]) -> tuple[int, ...]:
    """Ports in state LISTEN of /proc/net/tcp and tcp6, sorted."""
    found = set()
    for line in lines:
        words = line.split()
        if len(words) > 3 and words[3] == "0A":
            found.add(int(words[1].rpartition(":")[2], 16))
    return tuple(sorted(found))


def _one(files: Mapping[str, list[str]], path: str) -> str:
    return files[path][0].strip() if files.get(path) else ""


def _meminfo(lines: Iterable[str]) -> dict[str, int]:
    matches = (re.match(r"(\w+):\s+(\d+) kB", line) for line in lines)
    return {match[1]: int(match[2]) * _KIB for match in matches if match}


def _available(memory: Mapping[str, int]) -> int:
    """MemAvailable; kernels before 3.14 lack it."""
    guess = sum(memory.get(key, 0) for key in ("MemFree", "Buffers", "Cached")) - memory.get("Shmem", 0)
    return memory.get("MemAvailable", max(0, guess))


def _pressure(lines: Iterable[str]) -> float | None:
    """The 10 s average of "some" as a ratio."""
    match = next((m for line in lines if (m := re.match(r"some avg10=([0-9.]+)", line))), None)
    return float(match[1]) / 100 if match else None


def _os_image(lines: Iterable[str]) -> str:
    pairs = dict(line.split("=", 1) for line in lines if "=" in line)
    return (pairs.get("PRETTY_NAME") or pairs.get("NAME") or "").strip().strip("\"'")


@dataclass(frozen=True, slots=True)
class _Route:
    interface: str
    network: ipaddress.IPv4Network
    metric: int


def _addresses(files: Mapping[str, list[str]]) -> tuple[NodeIP, ...]:
    routes = [route for line in files.get("/proc/net/route", ()) if (route := _route(line))]
    defaults = sorted((r for r in routes if r.network.prefixlen == 0), key=lambda r: r.metric)
    default = defaults[0].interface if defaults else ""
    found: dict[str, NodeIP] = {}
    for address in _local_addresses(files.get("/proc/net/fib_trie", ())):
        interface = _interface_of(address, routes)
        found[str(address)] = NodeIP(str(address), interface, bool(interface) and interface == default)
    for line in files.get("/proc/net/if_inet6", ()):
        words = line.split()
        if len(words) == 6 and words[3] == "00":
            address6 = str(ipaddress.IPv6Address(int(words[0], 16)))
            found[address6] = NodeIP(address6, words[5], words[5] == default)
    return tuple(found[key] for key in sorted(found))


def _route(line: str) -> _Route | None:
    """A line of /proc/net/route: interface, then hexadecimal words in the machine's (little-endian) byte order."""
    words = line.split()
    if len(words) < 8 or not re.fullmatch(r"[0-9A-F]{8}", words[1]) or not int(words[3], 16) & 1:
        return None
    target, mask = _little_endian(words[1]), _little_endian(words[7])
    return _Route(words[0], ipaddress.IPv4Network(f"{target}/{mask}", strict=False), int(words[6]))


def _little_endian(word: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bytes.fromhex(word)[::-1])


def _local_addresses(lines: Iterable[str]) -> list[ipaddress.IPv4Address]:
    """Addresses that /proc/net/fib_trie marks `/32 host LOCAL`, without loopback and link-local."""
    found: list[ipaddress.IPv4Address] = []
    current: ipaddress.IPv4Address | None = None
    for line in lines:
        match = re.match(r"\s*\|-- (\d+\.\d+\.\d+\.\d+)", line)
        if match:
            current = ipaddress.IPv4Address(match[1])
        elif current is not None and "/32 host LOCAL" in line:
            found.append(current)
    return [ip for ip in dict.fromkeys(found) if not ip.is_loopback and not ip.is_link_local]


def _interface_of(address: ipaddress.IPv4Address, routes: Iterable[_Route]) -> str:
    """The interface of the narrowest network that holds the address."""
    fitting = [route for route in routes if address in route.network and route.network.prefixlen > 0]
    return max(fitting, key=lambda route: route.network.prefixlen).interface if fitting else ""
