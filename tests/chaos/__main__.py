"""`python -m tests.chaos`: hundreds of faults on a lab of Docker and Podman nodes; the result stays in `last.txt`."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from korch.lab.lab import Lab
from tests.chaos.kills import kill_rounds
from tests.chaos.storm import storm_rounds
from tests.chaos.watch import watch_storm
from tests.lab.faulty import SPECS, make_faulty

LAST = Path(__file__).with_name("last.txt")
FAULTS_A_ROUND = 5


def tell(text: str) -> None:
    """Shown at once."""
    print(text, flush=True)


def main() -> None:
    """Bring up a lab, strike, write the result down."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="deploys that are killed, without a master")
    parser.add_argument("--faults", type=int, default=300, help="faults of a storm around two masters")
    parser.add_argument("--changes", type=int, default=10_000, help="changes that 200 watchers of the API follow")
    parser.add_argument("--round", type=int, help="only this round of the storm, to see it again")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("KORCH_SEED") or random.randrange(10**6)))
    options = parser.parse_args()
    head = (
        f"python -m tests.chaos --kills {options.kills} --faults {options.faults} --changes {options.changes}"
        f" --seed {options.seed}"
    )
    tell(head)
    results = run(options)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if options.round is None:
        place = f"{when}, Python {sys.version.split()[0]}, two nodes each of Docker and Podman"
        LAST.write_text("\n".join([f"$ {head}", *results, place, ""]))
    tell("\n".join(results))


def run(options: argparse.Namespace) -> list[str]:
    """What was struck and held, a sentence each."""
    results = []
    if options.changes and options.round is None:
        with tempfile.TemporaryDirectory(prefix="korch-chaos-") as folder:
            results.append(str(watch_storm(options.changes, Path(folder), tell)))
    if not options.kills and not options.faults:
        return results
    with tempfile.TemporaryDirectory(prefix="korch-chaos-") as folder:
        lab = Lab(f"t{os.getpid()}-chaos", Path(folder) / "home")
        try:
            lab.up(SPECS)
            if options.kills and options.round is None:
                site = make_faulty(lab, Path(folder) / "kills")
                theirs = site.theirs()
                dice = random.Random(options.seed)
                results.append(str(kill_rounds(site, range(1, options.kills + 1), dice, node_faults=True, tell=tell)))
                assert site.theirs() == theirs, "somebody else's container was touched"
            if options.faults:
                site = make_faulty(lab, Path(folder) / "storm")
                theirs = site.theirs()
                rounds = range(1, -(-options.faults // FAULTS_A_ROUND) + 1)
                chosen = rounds if options.round is None else (options.round,)
                try:
                    tally = storm_rounds(site, options.seed, chosen, faults=FAULTS_A_ROUND, tell=tell)
                finally:
                    site.end_started()
                results.append(str(tally))
                assert site.theirs() == theirs, "somebody else's container was touched"
        finally:
            lab.down()
    return results


if __name__ == "__main__":
    main()
