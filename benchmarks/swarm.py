"""`korch master` beside Docker Swarm on the same three nodes: wishes, containers that go, nodes that go."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks import rolling
from benchmarks.eye import Eye, Seen
from benchmarks.figures import Figure
from benchmarks.mastered import Site, label, site

NODES = ("n1", "n2", "n3")
STALL_S = 5.0
CAUSES: Mapping[str, Callable[[Eye, Seen], None]] = {
    "docker kill": Eye.kill,
    "docker rm -f": Eye.remove,
    "its process killed": lambda eye, seen: os.kill(eye.pid(seen), signal.SIGKILL),
}


def figures(rounds: int, stalls: int) -> list[Figure]:
    """All of them, on one lab."""
    with site(NODES) as found:
        made = [*_wishes(found, rounds), *_healing(found, rounds)]
        made.append(rolling.figure(found, max(1, rounds // 3)))
        return [*made, _losses(found, max(1, rounds // 2)), _stalls(found, stalls)]


# From the wish to three running


def _wishes(found: Site, rounds: int) -> list[Figure]:
    korch, swarm, image, eye = label("korch", "wish"), label("swarm", "wish"), found.image, found.eye
    found.korch("deploy", image, "--name", "wish", "--replicas", "3", "--settle", "0")

    def running(act: Callable[[], None], mark: str) -> float:
        """Seconds from the call to three running; the command itself may take longer."""
        began = time.perf_counter()
        act()
        eye.wait_running(mark, 3)
        return time.perf_counter() - began

    def to_nothing(mark: str, act: Callable[[], object]) -> None:
        act()
        eye.wait_running(mark, 0)

    times: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    create = ("service", "create", "--quiet", "--detach", "--name", "wish", "--replicas", "3", image)
    for number in range(rounds + 1):
        to_nothing(korch, lambda: found.korch("scale", "wish=0"))
        scale = running(lambda: found.korch("scale", "wish=3", "--no-wait"), korch)
        to_nothing(korch, lambda: found.korch("scale", "wish=0"))
        began = time.perf_counter()
        found.korch("scale", "wish=3")
        whole = time.perf_counter() - began
        to_nothing(korch, lambda: found.korch("scale", "wish=0"))
        deploy = running(
            lambda: found.korch("deploy", image, "--name", "wish", "--replicas", "3", "--settle", "0"), korch
        )
        created = running(lambda: _ignore(found.docker(*create)), swarm)
        to_nothing(swarm, lambda: found.docker("service", "scale", "--detach", "wish=0"))
        scaled = running(lambda: _ignore(found.docker("service", "scale", "--detach", "wish=3")), swarm)
        to_nothing(swarm, lambda: found.docker("service", "rm", "wish"))
        if number:  # the first round warms up
            for name, seconds in (("scale", scale), ("whole", whole), ("deploy", deploy)):
                note(name, seconds)
            note("service create", created)
            note("service scale", scaled)
    found.korch("delete", "wish")
    peers = {name: statistics.median(times[name]) for name in ("service create", "service scale")}
    commands = {
        "service create": f"docker service create --detach --replicas 3 {image}   (on the manager, no SSH)",
        "service scale": "docker service scale --detach wish=3   (from 0)",
    }
    return [
        Figure(
            name=f"a master leads, {what}: from the call to three running containers",
            unit="s",
            ours=statistics.median(times[name]),
            peers=peers,
            targets={"service create": 1.0},
            commands={"korch": words, **commands},
        )
        for name, what, words in (
            ("scale", "the wish alone", "korch scale wish=3 --no-wait   (from 0)"),
            ("whole", "the command to its end", "korch scale wish=3   (from 0)"),
            ("deploy", "a deploy", f"korch deploy {image} --name wish --replicas 3 --settle 0   (scaled to 0 before)"),
        )
    ]


def _ignore(_: object) -> None:
    return None


# A container that goes


def _healing(found: Site, rounds: int) -> list[Figure]:
    """Each round hurts a replica that was not hurt before: no contender's back-off is measured."""
    count, image = rounds * len(CAUSES), found.image
    contenders = {
        "korch": label("korch", "heal"),
        "swarm": label("swarm", "heal"),
        "swarm, no delay": label("swarm", "heal0"),
        "docker run --restart always": label("docker", "heal"),
    }
    found.korch("deploy", image, "--name", "heal", "--replicas", str(count), "--settle", "0", "--timeout", "300")
    create = ("service", "create", "--quiet", "--detach", "--replicas", str(count))
    found.docker(*create, "--name", "heal", image)
    found.docker(*create, "--name", "heal0", "--restart-delay", "0s", image)
    for _ in range(count):
        found.docker("run", "-d", "--restart", "always", "--label", contenders["docker run --restart always"], image)
    for mark in contenders.values():
        found.eye.wait_running(mark, count)
    time.sleep(12.0)  # Docker restarts at once only what has run for 10 s
    times: dict[tuple[str, str], list[float]] = {}
    spared = {name: list(found.eye.running(mark)) for name, mark in contenders.items()}
    for cause, act in CAUSES.items():
        for _ in range(rounds):
            for name, mark in contenders.items():
                if name.startswith("docker") and cause != "its process killed":
                    continue  # it stays as it was left: people ended it
                times.setdefault((cause, name), []).append(_heal(found.eye, mark, count, spared[name].pop(), act))
    found.korch("delete", "heal")
    found.docker("service", "rm", "heal", "heal0")
    found_for = {
        cause: {name: statistics.median(times[cause, name]) for name in contenders if (cause, name) in times}
        for cause in CAUSES
    }
    return [_healing_figure(cause, medians) for cause, medians in found_for.items()]


def _heal(eye: Eye, mark: str, count: int, seen: Seen, act: Callable[[Eye, Seen], None]) -> float:
    """Seconds from the fault until as many run as before: another container, or this one started anew."""
    before = eye.started_at(seen)
    began = time.perf_counter()
    act(eye, seen)

    def healed() -> bool:
        running = eye.running(mark)
        if len(running) != count:
            return False
        return seen.id not in {one.id for one in running} or eye.started_at(seen) not in {before, None}

    eye.wait(f"{count} of {mark} again", healed)
    return time.perf_counter() - began


def _healing_figure(cause: str, medians: dict[str, float]) -> Figure:
    peers = {name: seconds for name, seconds in medians.items() if name != "korch"}
    return Figure(
        name=f"a container goes ({cause}): until it runs again",
        unit="s",
        ours=medians["korch"],
        peers=peers,
        targets={} if cause == "its process killed" else {"swarm": 0.2, "swarm, no delay": 1.0},
        commands={
            "korch": "korch deploy IMAGE   (a master leads)",
            "swarm": "docker service create IMAGE",
            "swarm, no delay": "docker service create --restart-delay 0s IMAGE",
            "docker run --restart always": "docker run -d --restart always IMAGE",
        },
        notes=() if "docker run --restart always" in peers else ("plain `docker run --restart always` leaves it down",),
    )


# A node that goes


def _losses(found: Site, rounds: int) -> Figure:
    """The same power cut hits both: each has three replicas, one on the node that goes."""
    eye, image = found.eye, found.image
    marks = {"korch": label("korch", "loss"), "swarm": label("swarm", "loss")}
    times: dict[str, list[float]] = {name: [] for name in marks}
    for number in range(rounds):
        victim = NODES[1 + number % 2]
        found.korch("deploy", image, "--name", "loss", "--replicas", "3", "--settle", "0")
        found.docker("service", "create", "--quiet", "--name", "loss", "--replicas", "3", image)
        for name, mark in marks.items():
            eye.wait_running(mark, 3)
            if victim not in {seen.node for seen in eye.running(mark)}:
                raise SystemExit(f"{name} has nothing on {victim}")
        time.sleep(5.0)
        back = _log(found).count(f"{victim}: is back")
        began = time.perf_counter()
        found.lab.kill(victim)
        missing = set(marks)

        def moved(missing: set[str] = missing, began: float = began) -> bool:
            for name in sorted(missing):
                if len(eye.running(marks[name])) >= 3:
                    times[name].append(time.perf_counter() - began)
                    missing.discard(name)
            return not missing

        eye.wait("replicas elsewhere", moved)
        found.lab.start(victim)
        found.korch("delete", "loss")
        found.docker("service", "rm", "loss")
        for mark in marks.values():
            eye.wait_running(mark, 0)
        eye.wait("the swarm's node", lambda: found.docker("node", "ls", "--format", "{{.Status}}").count("Ready") == 3)
        _wait_back(found, victim, back + 1)
    return Figure(
        name="a node is powered off silently: until three replicas run on the others",
        unit="s",
        ours=statistics.median(times["korch"]),
        peers={"swarm": statistics.median(times["swarm"])},
        targets={"swarm": 0.4},
        commands={"korch": "korch deploy IMAGE --replicas 3", "swarm": "docker service create --replicas 3 IMAGE"},
    )


def _wait_back(found: Site, node: str, times: int) -> None:
    found.eye.wait("korch's node", lambda: _log(found).count(f"{node}: is back") >= times)


def _log(found: Site) -> str:
    return (found.lab.folder / "master.log").read_text()


def _stalls(found: Site, count: int) -> Figure:
    """Networks that hang for five seconds: nothing may move, nothing may be started anew."""
    mark = label("korch", "stall")
    found.korch("deploy", found.image, "--name", "stall", "--replicas", "3", "--settle", "0")
    found.eye.wait_running(mark, 3)
    first, moves = set(found.eye.running(mark)), 0
    for number in range(count):
        node = NODES[number % 3]
        found.lab.partition(node)
        time.sleep(STALL_S)
        found.lab.heal(node)
        time.sleep(8.0)
        now = set(found.eye.running(mark))
        moves, first = moves + len(now ^ first), now
    found.korch("delete", "stall")
    return Figure(
        name=f"{count} times a node is cut off for {STALL_S:.0f} s: containers that moved",
        unit="containers",
        ours=float(moves),
        peers={},
        targets={},
        commands={"korch": "korch lab partition NODE; sleep 5; korch lab heal NODE"},
        notes=(f"target 0: {'MISSED' if moves else 'reached'}",),
    )
