"""Deploys that are killed at random moments and run again, mixed with faults of nodes.

After each kill the same command is run again, every node is mended, and the promises are checked from outside: never
two containers for one pod, as many replicas as wished, nothing without an owner, nobody else's container touched.
"""

import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Timer

from tests.lab.faulty import Faulty, finish, strike

APPS = ("web", "api")
LONGEST_S = 6.0  # after the start of a deploy: later strikes find it done


@dataclass
class Tally:
    """What happened in all rounds."""

    killed: int = 0
    too_late: int = 0
    faults: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.killed + self.too_late} deploys struck: {self.killed} killed half way, {self.too_late} were done;"
            f" {self.faults} faults of nodes; {self.seconds:.0f} s; no double, no lost replica, nothing without owner"
        )


@dataclass(frozen=True)
class Fault:
    """One way to break a node, some time after the start of a deploy."""

    name: str
    node: str
    after_s: float

    def __str__(self) -> str:
        return f"{self.name} {self.node} after {self.after_s:.2f} s"

    def strike(self, site: Faulty) -> None:
        """Do it."""
        match self.name:
            case "stop_engine":
                site.lab.stop_engine(self.node, hard=True)
            case "delay":
                site.lab.delay(self.node, 80, 20)
            case "loss":
                site.lab.loss(self.node, 15)
            case _:
                getattr(site.lab, self.name)(self.node)


def random_fault(site: Faulty, dice: random.Random) -> Fault:
    """A fault that the chosen node's engine can have."""
    node = dice.choice(site.nodes)
    kinds = ["kill", "pause", "partition", "delay", "loss", *(["stop_engine"] if node.startswith("d") else [])]
    return Fault(dice.choice(kinds), node, dice.uniform(0.0, 3.0))


def kill_rounds(
    site: Faulty, rounds: Iterable[int], dice: random.Random, *, node_faults: bool, tell: Callable[[str], object]
) -> Tally:
    """Strike a deploy a round; raises AssertionError at the first broken promise."""
    tally, wished, started = Tally(), dict.fromkeys(APPS, 0), time.monotonic()
    usual_s = 1.5
    for number in rounds:
        app, version, replicas = dice.choice(APPS), dice.choice("12"), dice.randint(0, 5)
        command = ("deploy", site.image(version), "--name", app, "--replicas", str(replicas), "--settle", "0")
        moment_s = dice.uniform(0.05, min(LONGEST_S, 1.2 * usual_s))
        fault = random_fault(site, dice) if node_faults and dice.random() < 0.4 else None
        more = f", {fault}" if fault else ""
        tell(f"{number}: {app} version {version} x {replicas}, SIGKILL after {moment_s:.2f} s{more}")

        killed = one_strike(site, command, moment_s, fault)
        tally.killed += killed
        tally.too_late += not killed
        tally.faults += fault is not None
        if fault is not None:
            finish(site.start(*command), status=None)  # whatever it says while the node is in trouble
            site.mend()
        again = time.monotonic()
        site.korch(*command)
        usual_s = 0.5 * usual_s + 0.5 * (time.monotonic() - again + 0.5)
        if fault is not None:
            site.korch("sync")
        wished[app] = replicas
        site.check(wished)
    tally.seconds = time.monotonic() - started
    return tally


def one_strike(site: Faulty, command: tuple[str, ...], moment_s: float, fault: Fault | None) -> bool:
    """Start a deploy, break a node, kill the deploy; whether it was still at it."""
    timer = Timer(fault.after_s, fault.strike, (site,)) if fault is not None else None
    deploy = site.start(*command)
    if timer is not None:
        timer.start()
    time.sleep(moment_s)
    strike(deploy, signal.SIGKILL)
    status = finish(deploy, status=None).status
    if timer is not None:
        timer.join()
    assert status in {0, -signal.SIGKILL} or fault is not None, status
    site.end_started()
    return status == -signal.SIGKILL
