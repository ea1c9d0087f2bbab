"""A storm: two masters keep a cluster while random faults strike and wishes change; then quiet, and everything is true.

Each round is made from the seed and its number alone, so that a failing one replays by itself. What is checked after
the quiet: every wish is what runs, never two containers for one pod, nothing lost, nothing without an owner, nobody
else's container touched, and no master has met a bug.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from korch.errors import SetupError
from tests.lab.faulty import Faulty, finish, strike
from tests.lab.mastering import Master, settles, start_master

APPS = ("web", "api")
LONGEST_S = 14.0  # of a fault: a node that is cut off for so long is given up, for less it is not
NODE_FAULTS = ("kill_node", "pause_node", "partition", "loss", "delay", "fill_disk", "clock", "stop_engine")
OTHER_FAULTS = ("kill_container", "rm_container", "kill_master", "freeze_master", "kill_cli")
QUIET_S = 120.0  # far more than it takes: what is wrong stays wrong

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {app}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {app}}}}}
  template:
    metadata: {{labels: {{app: {app}}}}}
    spec:
      terminationGracePeriodSeconds: 3
      containers: [{{name: {app}, image: "{image}"}}]
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong `at_s` after the start of the round, for `lasts_s`."""

    name: str
    at_s: float
    lasts_s: float
    node: str = ""
    number: int = 0  # whatever the fault has to choose

    def __str__(self) -> str:
        where = f" {self.node}" if self.node else ""
        return f"{self.name}{where} at {self.at_s:.1f} s for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants. `kind`: deploy (goes back by itself), apply, scale, drain."""

    kind: str
    at_s: float
    app: str = ""
    version: str = "1"
    replicas: int = 0
    node: str = ""

    def __str__(self) -> str:
        what = f"drain {self.node}" if self.kind == "drain" else f"{self.kind} {self.app} x {self.replicas}"
        return (
            what + (f" version {self.version}" if self.kind in {"deploy", "apply"} else "") + f" at {self.at_s:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class Round:
    """What happens before the next quiet."""

    number: int
    faults: tuple[Fault, ...]
    wishes: tuple[Wish, ...]

    def __str__(self) -> str:
        return f"{self.number}: {'; '.join(map(str, (*self.faults, *self.wishes)))}"


def plan_round(seed: int, number: int, nodes: Sequence[str], faults: int) -> Round:
    """Pure: the round of that number. Half of the nodes are hurt at most: more would be the master's own network."""
    dice = random.Random(f"{seed}/{number}")
    hurt = dice.sample(list(nodes), max(1, len(nodes) // 2))
    return Round(
        number,
        tuple(_fault(dice, hurt, nodes) for _ in range(faults)),
        tuple(_wish(dice, app, nodes) for app in APPS for _ in range(dice.randint(0, 2))),
    )


def _fault(dice: random.Random, hurt: Sequence[str], nodes: Sequence[str]) -> Fault:
    times = (dice.uniform(0, 6), dice.uniform(0.5, LONGEST_S))
    name = dice.choice(NODE_FAULTS) if dice.random() < 0.5 else dice.choice(OTHER_FAULTS)
    if name in NODE_FAULTS:
        able = [node for node in hurt if name != "stop_engine" or node.startswith("d")] or ["d1"]
        return Fault(name, *times, dice.choice(able), dice.randrange(100))
    return Fault(name, *times, dice.choice(list(nodes)) if "container" in name else "", dice.randrange(100))


def _wish(dice: random.Random, app: str, nodes: Sequence[str]) -> Wish:
    at_s, version, replicas = dice.uniform(0, 8), dice.choice("12"), dice.randint(0, 5)
    match dice.choice(("change", "change", "scale", "drain")):
        case "change":
            return Wish("deploy" if app == "web" else "apply", at_s, app, version, replicas)
        case "scale":
            return Wish("scale", at_s, app, replicas=replicas)
        case _:
            return Wish("drain", at_s, node=dice.choice(list(nodes)))


@dataclass
class Tally:
    """What has happened in all rounds."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    wishes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.faults.total()} faults ({kinds}) and {self.wishes} changed wishes in {self.rounds} rounds,"
            f" {self.seconds:.0f} s; after each quiet every wish was true: no double, no loss, nothing without owner"
        )


class Storm:
    """Masters, wishes and faults over a site of two Docker and two Podman nodes."""

    def __init__(self, site: Faulty) -> None:
        self.site = site
        self.wished = dict.fromkeys(APPS, ("1", 2))
        self.masters = [self._master()]
        for node in site.nodes:
            self.masters[0].says(f"{node}: ready")
        for app in APPS:
            self._say(self._change("deploy" if app == "web" else "apply", app, "1", 2), must=True)
        settles(site, self._counts())
        self.masters.append(self._master())

    def round(self, one: Round) -> None:
        """Let it happen, mend everything, and see that all promises hold."""
        began, failed = time.monotonic(), []
        with ThreadPoolExecutor(len(one.faults) + 1) as pool:
            struck = [pool.submit(self._strike, fault, began) for fault in one.faults]
            for wish in sorted(one.wishes, key=lambda wish: wish.at_s):
                _sleep_until(began + wish.at_s)
                if not self._fulfil(wish):
                    failed.append(wish)
            for each in struck:
                each.result()
        self._mend()
        for wish in failed:  # said again, now that everything works
            assert self._fulfil(wish, must=True)
        self._quiet()

    def stop(self) -> None:
        """End the masters; none may have met a bug."""
        for master in self.masters:
            master.stop()
            assert_sound(master)

    def _quiet(self) -> None:
        deadline = time.monotonic() + QUIET_S
        while True:
            try:
                settles(self.site, self._counts())
                self._check_versions()
            except (AssertionError, SetupError):
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def _counts(self) -> dict[str, int]:
        return {app: replicas for app, (_, replicas) in self.wished.items()}

    def _check_versions(self) -> None:
        for pod in self.site.korch.objects("pods"):
            app = pod["metadata"]["labels"]["app"]
            assert pod["spec"]["containers"][0]["image"] == self.site.image(self.wished[app][0]), pod

    def _mend(self) -> None:
        self.site.mend()
        for node in self.site.nodes:
            self._clock(node, 0)
        self._say(("node", "uncordon", *self.site.nodes), must=True)

    # --- wishes ---

    def _fulfil(self, wish: Wish, *, must: bool = False) -> bool:
        """Whether it is on record now; what it asks for is then what is to be true."""
        if wish.kind == "drain":
            return self._say(("node", "drain", wish.node, "--no-wait"), must=False) or True  # taken back in the quiet
        version, _ = self.wished[wish.app]
        version = version if wish.kind == "scale" else wish.version
        said = self._say(self._change(wish.kind, wish.app, version, wish.replicas), must=must)
        if said:
            self.wished[wish.app] = (version, wish.replicas)
        return said

    def _change(self, kind: str, app: str, version: str, replicas: int) -> tuple[str, ...]:
        image = self.site.image(version)
        match kind:
            case "deploy":
                words = ("--name", app, "--replicas", str(replicas), "--settle", "0", "--no-wait")
                return ("deploy", image, *words)
            case "scale":
                return ("scale", f"{app}={replicas}", "--no-wait")
            case _:
                file = self.site.korch.cwd / f"{app}.yml"
                file.write_text(MANIFEST.format(app=app, image=image, replicas=replicas))
                return ("apply", "-f", str(file), "--no-wait")

    def _say(self, words: Sequence[str], *, must: bool) -> bool:
        run = finish(self.site.start(*words), status=0 if must else None)
        return run.status == 0

    # --- faults ---

    def _strike(self, fault: Fault, began: float) -> None:
        _sleep_until(began + fault.at_s)
        end = began + fault.at_s + fault.lasts_s
        if fault.name in NODE_FAULTS:
            self._strike_node(fault, end)
            return
        match fault.name:
            case "kill_container" | "rm_container":
                self._strike_container(fault)
            case "kill_master":
                self._kill_master(fault.number % 2)
            case "freeze_master":
                master = self.masters[fault.number % 2]
                strike(master.process, signal.SIGSTOP)
                _sleep_until(end)
                strike(master.process, signal.SIGCONT)
            case "kill_cli":
                app = APPS[fault.number % 2]
                replicas = str(self.wished[app][1])
                one = self.site.start("scale", f"{app}={replicas}")  # what is wished already, looked at in the middle
                _sleep_until(min(end, time.monotonic() + fault.number / 100))
                strike(one, signal.SIGKILL)

    def _kill_master(self, index: int) -> None:
        """The other one takes over; a new one waits from then on."""
        master = self.masters[index]
        strike(master.process, signal.SIGKILL)
        master.process.wait()
        assert_sound(master)
        self.masters[index] = self._master()

    def _master(self) -> Master:
        return start_master(self.site)

    def _strike_container(self, fault: Fault) -> None:
        """One of korch's containers on the node, whichever the number says; none there, nothing done."""
        engine = self.site.engine(fault.node)
        words = ("kill",) if fault.name == "kill_container" else ("rm", "-f")
        listed = (engine, "ps", "-q", "--filter", "label=korch.dev/uid")
        try:
            ids = self.site.lab.exec_in(fault.node, listed).stdout.split()
            if ids:
                self.site.lab.exec_in(fault.node, (engine, *words, ids[fault.number % len(ids)]))
        except SetupError:
            return  # the node or its engine is down, or the container went by itself

    def _strike_node(self, fault: Fault, end: float) -> None:
        lab, node = self.site.lab, fault.node
        ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "kill_node": (lambda: lab.kill(node), lambda: lab.start(node)),
            "pause_node": (lambda: lab.pause(node), lambda: lab.resume(node)),
            "partition": (lambda: lab.partition(node), lambda: lab.heal(node)),
            "loss": (lambda: lab.loss(node, 15), lambda: lab.heal(node)),
            "delay": (lambda: lab.delay(node, 80, 20), lambda: lab.heal(node)),
            "fill_disk": (lambda: lab.fill_disk(node), lambda: lab.free_disk(node)),
            "clock": (lambda: self._clock(node, (fault.number - 50) * 300), lambda: self._clock(node, 0)),
            "stop_engine": (lambda: lab.stop_engine(node, hard=fault.number % 2 == 0), lambda: lab.start_engine(node)),
        }
        begin, finally_ = ways[fault.name]
        for act, until in ((begin, end), (finally_, 0.0)):
            with suppress(SetupError, OSError):  # another fault has the node: `_mend` ends all of them
                act()
            _sleep_until(until)

    def _clock(self, node: str, seconds: int) -> None:
        """The node's clock is off by so much; 0 sets it right."""
        path = self.site.lab.folder / "nodes" / node / "local/bin/date"
        if seconds == 0:
            path.unlink(missing_ok=True)
            return
        path.write_text(f'#!/bin/sh\nexec /usr/bin/date -d "@$(($(/usr/bin/date +%s) + {seconds}))" "$@"\n')
        path.chmod(0o755)


def assert_sound(master: Master) -> None:
    """It has met nothing that its authors did not think of."""
    assert "bug in korch" not in master.text, master.text
    assert "Traceback" not in master.text, master.text


def storm_rounds(
    site: Faulty, seed: int, rounds: Iterable[int], *, faults: int, tell: Callable[[str], object]
) -> Tally:
    """Run these rounds; AssertionError at the first broken promise."""
    tally, began = Tally(), time.monotonic()
    storm = Storm(site)
    for number in rounds:
        one = plan_round(seed, number, site.nodes, faults)
        tell(str(one))
        storm.round(one)
        tally.rounds += 1
        tally.faults.update(fault.name for fault in one.faults)
        tally.wishes += len(one.wishes)
    storm.stop()
    tally.seconds = time.monotonic() - began
    return tally


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
