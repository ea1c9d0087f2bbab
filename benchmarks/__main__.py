"""`make bench`: every figure in one run on this machine, as ratios. `python -m benchmarks [FIGURE...] [--rounds N]`."""

import argparse
import json
from collections.abc import Callable, Iterable

from benchmarks import api, peers, placement_quality, rest, scheduler, swarm
from benchmarks.figures import Figure

ALL = ("startup", "deploy", "nodes", "master", "rest", "api", "scheduler", "quality")


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
    figures: dict[str, Callable[[], Iterable[Figure]]] = {
        "startup": lambda: peers.startup(chosen.rounds),
        "deploy": lambda: [peers.deploy(chosen.rounds)],
        "nodes": lambda: [peers.nodes(chosen.rounds)],
        "master": lambda: swarm.figures(chosen.rounds, chosen.stalls),
        "rest": rest.figures,
        "api": lambda: api.figures(chosen.rounds),
    }
    for name, measure in figures.items():
        for figure in measure() if name in wanted else ():
            _print(figure)
    if "scheduler" in wanted:
        print("## scheduling 10,000 pods on 1,000 nodes; target >= 10,000 pods/s   $ python -m benchmarks.scheduler")
        print(json.dumps(scheduler.run(), indent=2), "\n")
    if "quality" in wanted:
        print("## evenness of real load; target <= 0.7 x requests only   $ python -m benchmarks.placement_quality")
        print(json.dumps(placement_quality.run(), indent=2))


def _print(figure: Figure) -> None:
    print("\n".join(figure.lines()), flush=True)
    print()


if __name__ == "__main__":
    main()
