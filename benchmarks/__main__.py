"""`make bench`: every figure in one run on this machine, as ratios. `python -m benchmarks [FIGURE...] [--rounds N]`.

What was printed last stays in `last/FIGURE.txt`.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import api, peers, placement_quality, rest, scheduler, swarm
from benchmarks.figures import Figure

ALL = ("startup", "deploy", "nodes", "master", "rest", "api", "scheduler", "quality")
LAST = Path(__file__).with_name("last")


def main() -> None:
    """Run what is asked for, everything by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("figures", nargs="*", default=[], metavar="|".join(ALL))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stalls", type=int, default=4, help="of five seconds, for the master")
    chosen = parser.parse_args()
    wanted = chosen.figures or ALL
    unknown = set(wanted) - set(ALL)
    if unknown:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}")
    print(f"# korch and its peers, side by side: medians of {chosen.rounds} rounds in turn; {peers.cores()}\n")
    figures: dict[str, Callable[[], Iterable[str]]] = {
        "startup": lambda: _texts(peers.startup(chosen.rounds)),
        "deploy": lambda: _texts([peers.deploy(chosen.rounds)]),
        "nodes": lambda: _texts([peers.nodes(chosen.rounds)]),
        "master": lambda: _texts(swarm.figures(chosen.rounds, chosen.stalls)),
        "rest": lambda: _texts(rest.figures()),
        "api": lambda: _texts(api.figures(chosen.rounds)),
        "scheduler": _scheduling,
        "quality": _evenness,
    }
    options = f"--rounds {chosen.rounds} --stalls {chosen.stalls}"
    for name in wanted:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        lines = [f"$ python -m benchmarks {name} {options}", f"{when}, {peers.cores()}", ""]
        for text in figures[name]():
            print(text, "\n", flush=True)
            lines += [text, ""]
        LAST.mkdir(exist_ok=True)
        (LAST / f"{name}.txt").write_text("\n".join(lines))


def _texts(figures: Iterable[Figure]) -> Iterable[str]:
    return ("\n".join(figure.lines()) for figure in figures)


def _scheduling() -> Iterable[str]:
    yield "## scheduling 10,000 pods on 1,000 nodes; target >= 10,000 pods/s   $ python -m benchmarks.scheduler"
    yield json.dumps(scheduler.run(), indent=2)


def _evenness() -> Iterable[str]:
    yield "## evenness of real load; target <= 0.7 x requests only   $ python -m benchmarks.placement_quality"
    yield json.dumps(placement_quality.run(), indent=2)


if __name__ == "__main__":
    main()
