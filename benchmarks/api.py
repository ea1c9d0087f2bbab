"""The API of a master: lists, single calls, durable writes, watchers, and what real kubectl waits for.

The server is a process of its own (`benchmarks.apiserver`); the client is here, over TLS, with a certificate.
"""

import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.apiwatch import delays
from benchmarks.figures import UNUSUAL, Figure, call, in_turn
from benchmarks.replay import replaying
from korch.client.kubeconfig import Access, access_of, read_config
from korch.client.wire import Answer, Call, Wire
from tests.kubetools import KUBECTL

PODS = 5000
CURVE = (1000, 5000, 20_000, 150_000)
CALLS, AT_ONCE, RATE_S, LISTS = 500, 32, 4.0, 7
OBJECTIVE_MS, TWENTIETH_MS = 1000.0, 50.0  # Kubernetes' own for single-object calls, and 20 times under it
LIST_OBJECTIVE_S = 30.0  # Kubernetes' own for lists of the whole cluster at 150,000 pods
WATCHERS = (1, 500)
MIB = 1 << 20
SPACE = "/api/v1/namespaces/default"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
SERVER = "python -m benchmarks.apiserver"


@dataclass(frozen=True)
class Served:
    """An API that runs, over so many pods."""

    pid: int
    config: Path
    pods: int

    @property
    def access(self) -> Access:
        """The way there."""
        return access_of(read_config([self.config], must_exist=True))

    def rss_mib(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@contextmanager
def served(pods: int) -> Iterator[Served]:
    """An API over so many pods, for the length of a block."""
    with TemporaryDirectory(prefix="korch-bench-") as folder:
        argv = (sys.executable, "-m", "benchmarks.apiserver", folder, str(pods))
        env = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            config = process.stdout.readline().strip()
            if not config:
                raise SystemExit(f"{' '.join(argv)} does not serve")
            yield Served(process.pid, Path(config), pods)
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def figures(rounds: int) -> list[Figure]:
    """All of them."""
    with served(PODS) as site:
        found = asyncio.run(_over_http(site))
        found += _kubectl(site, rounds)
    return [*found, *_curve()]


async def _over_http(site: Served) -> list[Figure]:
    wire = Wire(site.access)
    try:
        return [
            *await _lists(wire),
            *await _single(site, wire),
            *await _writes(site, wire),
            *await _watchers(site, wire),
        ]
    finally:
        await wire.close()


# --- lists ---


async def _lists(wire: Wire) -> list[Figure]:
    plain = Call("GET", "/api/v1/pods")
    table = Call("GET", "/api/v1/pods", accept=TABLE)
    await _good(wire, plain)
    size = len((await _good(wire, plain)).body) / MIB
    times: dict[str, list[float]] = {"json": [], "table": [], "page": []}
    page = Call("GET", "/api/v1/pods", (("limit", "500"),), accept=TABLE)
    for _ in range(LISTS):
        for name, call_ in (("json", plain), ("table", table), ("page", page)):
            times[name].append(await _seconds(wire, call_))
    median = {name: statistics.median(found) for name, found in times.items()}
    what = f"list of {PODS} pods"
    return [
        _limit(f"{what} as JSON, {size:.1f} MiB", "s", median["json"], LIST_OBJECTIVE_S / 20),
        _limit(f"{what} as the Table that kubectl asks for", "s", median["table"], LIST_OBJECTIVE_S / 20),
        _limit(f"one page of 500 of them, as kubectl get asks for it ({what})", "s", median["page"], None),
    ]


# --- single objects ---


async def _single(site: Served, wire: Wire) -> list[Figure]:
    names = await _names(wire)
    one: dict[str, Callable[[int], Call]] = {
        "GET": lambda n: Call("GET", f"{SPACE}/pods/{names[n * 7 % len(names)]}"),
        "PATCH": lambda n: _labelled(names[n * 7 % len(names)], n),
        "POST": lambda n: _config_map("one", n),
        "DELETE": lambda n: Call("DELETE", f"{SPACE}/configmaps/one-{n}"),
    }
    found = []
    for verb, make in one.items():
        bare = {"GET /version": await _latencies(wire, lambda _: Call("GET", "/version"), CALLS)}
        alone = {} if verb == "GET" else {"an SQLite commit alone": _commits(site.config.parent, CALLS)}
        times = await _latencies(wire, make, CALLS)
        found.append(_p99(f"{verb} of one object beside {PODS} pods, {CALLS} in a row", times, alone or bare))
    other = Wire(site.access)
    try:
        lister = asyncio.create_task(_again_and_again(other, Call("GET", "/api/v1/pods")))
        times = await _latencies(wire, one["GET"], CALLS)
        bare = {"GET /version": await _latencies(wire, lambda _: Call("GET", "/version"), CALLS)}
        lister.cancel()
        await asyncio.gather(lister, return_exceptions=True)
    finally:
        await other.close()
    found.append(_p99(f"GET of one pod while somebody lists all {PODS} again and again", times, bare))
    return found


def _p99(name: str, times: Sequence[float], peers: Mapping[str, Sequence[float]]) -> Figure:
    ms = [found * 1000 for found in times]
    at = _quantile(ms, 0.99)
    under = f"{OBJECTIVE_MS / at:.0f} x under Kubernetes' objective of 1 s"
    verdict = f"target p99 <= {TWENTIETH_MS:g} ms: {'reached' if at <= TWENTIETH_MS else 'MISSED'} ({under})"
    notes = (verdict, f"median {statistics.median(ms):.2f}, worst {max(ms):.2f} ms")
    others = {peer: _quantile(found, 0.99) * 1000 for peer, found in peers.items()}
    return Figure(f"{name}: p99", "ms", at, others, {}, {"korch": SERVER}, notes)


# --- writes ---


async def _writes(site: Served, wire: Wire) -> list[Figure]:
    """How many writes a second are on the disk when they are answered: one client, then many at once."""
    names = await _names(wire)
    makes: dict[str, Callable[[int], Call]] = {
        "create": lambda n: _config_map("rate", n),
        "patch": lambda n: _labelled(names[n % len(names)], n),
    }
    found = []
    for what, make in makes.items():
        commits = 1 / statistics.mean(_commits(site.config.parent, 2 * CALLS))
        alone = await _rate([wire], make, start=0)
        many = [Wire(site.access) for _ in range(AT_ONCE)]
        try:
            together = await _rate(many, make, start=1_000_000)
        finally:
            for one in many:
                await one.close()
        for rate, how in ((alone, "one client"), (together, f"{AT_ONCE} clients at once")):
            name = f"{what} durable on disk, {how}"
            peers = {"SQLite commits alone": commits}
            note = "higher is better; SQLite: one thread, WAL, synchronous=FULL, as much data, no API"
            found.append(Figure(name, "a second", rate, peers, {}, {"korch": SERVER}, (note,)))
    return found


async def _rate(wires: Sequence[Wire], make: Callable[[int], Call], *, start: int) -> float:
    """Calls a second of all clients together."""
    began = time.perf_counter()
    counts = [0] * len(wires)

    async def one(place: int, wire: Wire) -> None:
        while time.perf_counter() - began < RATE_S:
            await _good(wire, make(start + place * 10_031 + counts[place]))
            counts[place] += 1

    await asyncio.gather(*(one(place, wire) for place, wire in enumerate(wires)))
    return sum(counts) / (time.perf_counter() - began)


def _commits(folder: Path, count: int) -> list[float]:
    """What the disk and SQLite alone take: seconds of durable transactions of a row of 2 KB."""
    connection = sqlite3.connect(folder / "alone.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (data BLOB)")
    times = []
    for _ in range(count):
        began = time.perf_counter()
        connection.execute("INSERT INTO rows VALUES (?)", (b"x" * 2048,))
        times.append(time.perf_counter() - began)
    connection.close()
    return times


# --- watchers ---


async def _watchers(site: Served, wire: Wire) -> list[Figure]:
    names = await _names(wire)
    found = []
    for count in WATCHERS:
        before, after = site.rss_mib(), await _revision(wire)
        base = 2_000_000 + count * 1000
        write = partial(_write_label, wire, names, base)
        seen = await delays(site.access, count, after, write, site.rss_mib)
        each_kib = (seen.rss_mib - before) * 1024 / count
        last_ms = [one * 1000 for one in seen.last_s]
        median_ms = [one * 1000 for one in seen.median_s]
        middle, late = statistics.median(median_ms), _quantile(last_ms, 0.99)
        notes = (
            f"to the median watcher {middle:.2f} ms; p99 to the last {late:.2f} ms",
            *((f"{each_kib:.0f} KiB of memory a watcher",) if count > 1 else ()),
        )
        name = f"from the begin of a write to the last of {count} watcher(s), median of {len(last_ms)} writes"
        peers = {"the write alone": statistics.median(seen.written_s) * 1000}
        found.append(Figure(name, "ms", statistics.median(last_ms), peers, {}, {"korch": SERVER}, notes))
    name = f"memory with {PODS} pods, after all of this"
    return [*found, _limit(name, "MiB", site.rss_mib(), None)]


# --- kubectl ---


def _kubectl(site: Served, rounds: int) -> list[Figure]:
    """Wall time of real kubectl, beside kubectl that asks nobody, and kubectl that is answered from memory at once."""
    if not KUBECTL:
        print("kubectl is not there (python -m tests.kubetools): its figures are left out")
        return []
    folder = site.config.parent
    manifest = folder / "apply.json"
    versions = iter(range(1, 10**6))

    def apply_with(config: Path) -> Callable[[int], None]:
        def apply(_: int) -> None:
            meta = {"name": "applied", "labels": {"version": str(next(versions))}}
            manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}))
            _run(folder, config, "apply", "-f", str(manifest))

        return apply

    def get_with(config: Path) -> Callable[[int], None]:
        return lambda _: _run(folder, config, "get", "pods")

    with replaying(site.access, folder) as still:
        acts: dict[str, Callable[[Path], Callable[[int], None]]] = {
            "get pods": get_with,
            "apply": apply_with,
        }
        found = []
        for what, act in acts.items():
            contenders: dict[str, Callable[[int], None]] = {
                "korch": act(site.config),
                "static answers": act(still),
                "kubectl alone": lambda _: _run(folder, still, "version", "--client"),
            }
            for one in contenders.values():
                one(0)  # discovery is cached then, and the answers are known
            median = in_turn(rounds, contenders)
            name = f"kubectl {what}" + (f" ({site.pods} pods)" if what == "get pods" else "")
            ours = median.pop("korch")
            commands = {"korch": f"kubectl {what}", "kubectl alone": "kubectl version --client"}
            over_ms = (ours - median["static answers"]) * 1000
            note = f"over the client's own cost: {over_ms:.0f} ms"
            found.append(Figure(name, "s", ours, median, {"static answers": 2.0}, commands, (note,)))
    return found


def _run(folder: Path, config: Path, *words: str) -> None:
    call((KUBECTL, "--kubeconfig", str(config), *words), {"HOME": str(folder), "KUBECACHEDIR": str(folder / "cache")})


# --- the curve ---


def _curve() -> list[Figure]:
    found = []
    for pods in CURVE:
        with served(pods) as site:
            found += asyncio.run(_point(site))
    return found


async def _point(site: Served) -> list[Figure]:
    """Over so many pods: the first list, which loads them, a later one, and single calls."""
    wire = Wire(site.access)
    everything = Call("GET", "/api/v1/pods")
    try:
        first = await _seconds(wire, everything)
        times = [await _seconds(wire, everything) for _ in range(3)]
        names = await _names(wire)
        gets = await _latencies(wire, lambda n: Call("GET", f"{SPACE}/pods/{names[n * 7 % len(names)]}"), CALLS)
        patches = await _latencies(wire, lambda n: _labelled(names[n * 7 % len(names)], n), CALLS)
    finally:
        await wire.close()
    get_ms, patch_ms = (_quantile(found, 0.99) * 1000 for found in (gets, patches))
    notes = (
        f"the first list, which loads them: {first:.2f} s; memory {site.rss_mib():.0f} MiB",
        f"single objects, p99: GET {get_ms:.1f} ms, PATCH {patch_ms:.1f} ms",
    )
    found = _limit(f"list of {site.pods} pods", "s", statistics.median(times), LIST_OBJECTIVE_S)
    return [Figure(found.name, found.unit, found.ours, {}, {}, found.commands, (*found.notes, *notes))]


# --- calls ---


async def _write_label(wire: Wire, names: Sequence[str], base: int, number: int) -> None:
    await _good(wire, _labelled(names[number], base + number))


async def _good(wire: Wire, call_: Call) -> Answer:
    answer = await wire.ask(call_, answer_s=300)
    if answer.status >= 300:
        raise SystemExit(f"{call_.method} {call_.target}: {answer.status} {answer.body[:300]!r}")
    return answer


async def _seconds(wire: Wire, call_: Call) -> float:
    began = time.perf_counter()
    await _good(wire, call_)
    return time.perf_counter() - began


async def _latencies(wire: Wire, make: Callable[[int], Call], count: int) -> list[float]:
    await _good(wire, Call("GET", "/version"))  # a connection is there then
    return [await _seconds(wire, make(number)) for number in range(count)]


async def _again_and_again(wire: Wire, call_: Call) -> None:
    while True:
        await _good(wire, call_)


async def _names(wire: Wire) -> list[str]:
    answer = await _good(wire, Call("GET", f"{SPACE}/pods", (("limit", "1000"),)))
    return [item["metadata"]["name"] for item in json.loads(answer.body)["items"]]


async def _revision(wire: Wire) -> int:
    answer = await _good(wire, Call("GET", f"{SPACE}/pods", (("limit", "1"),)))
    return int(json.loads(answer.body)["metadata"]["resourceVersion"])


def _labelled(name: str, number: int) -> Call:
    body = json.dumps({"metadata": {"labels": {"bench": f"n{number}"}}}).encode()
    return Call("PATCH", f"{SPACE}/pods/{name}", body=body, content_type="application/merge-patch+json")


def _config_map(prefix: str, number: int) -> Call:
    body = json.dumps({"metadata": {"name": f"{prefix}-{number}"}, "data": {"text": "x" * 1500}}).encode()
    return Call("POST", f"{SPACE}/configmaps", body=body)


def _quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def _limit(name: str, unit: str, ours: float, at_most: float | None) -> Figure:
    verdict = "" if at_most is None else f"target <= {at_most:g}: {'reached' if ours <= at_most else 'MISSED'}"
    return Figure(name, unit, ours, {}, {}, {"korch": SERVER}, (verdict,) if verdict else ())
