"""One figure: what was measured against what, with the command lines, medians and the target."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

UNUSUAL = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}  # build machines set them; people's machines do not


@dataclass(frozen=True, slots=True)
class Figure:
    """`ours` and the peers in one unit; `targets` are ratios of ours to each peer that are to be reached."""

    name: str
    unit: str
    ours: float
    peers: Mapping[str, float]
    targets: Mapping[str, float]
    commands: Mapping[str, str]
    notes: Sequence[str] = field(default=())

    def lines(self) -> list[str]:
        """The figure as text."""
        out = [f"## {self.name}", f"    korch  {self.ours:10.3f} {self.unit}   $ {self.commands['korch']}"]
        for peer, value in self.peers.items():
            ratio = self.ours / value if value else float("nan")
            target = self.targets.get(peer)
            verdict = "" if target is None else f"  target <= {target}: {'reached' if ratio <= target else 'MISSED'}"
            out.append(f"    {peer:<22} {value:10.3f} {self.unit}   $ {self.commands.get(peer, '')}")
            out.append(f"      korch / {peer} = {ratio:.2f}{verdict}")
        return [*out, *(f"    {note}" for note in self.notes)]


REST_S = 1.5  # what one leaves behind, such as connections that end, is not the next one's cost


def in_turn(rounds: int, contenders: Mapping[str, Callable[[int], object]]) -> dict[str, float]:
    """Median seconds of each contender over rounds in which all take turns, so that noise hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run(number)
            times[name].append(time.perf_counter() - began)
            time.sleep(REST_S)
    return {name: statistics.median(found) for name, found in times.items()}


def call(argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Run to the end; what it prints is shown only when it fails."""
    found = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
    done = subprocess.run(argv, env={**found, **(env or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


def together(commands: Sequence[Sequence[str]], at_once: int = 0) -> None:
    """Run all at the same time, or `at_once` of them."""
    waiting, running = list(commands), list[subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and (not at_once or len(running) < at_once):
            running.append(subprocess.Popen(waiting.pop(0), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        first = running.pop(0)
        if first.wait():
            raise SystemExit(f"{first.args!r}: exit {first.returncode}")


def cpu_seconds(argv: Sequence[str], env: Mapping[str, str] | None = None, rounds: int = 9) -> float:
    """Median CPU seconds (user and system) of a program."""
    found = []
    for _ in range(rounds):
        before = os.times()
        call(argv, env)
        after = os.times()
        found.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(found)
