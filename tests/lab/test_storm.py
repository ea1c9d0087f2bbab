"""Twenty random faults around two masters, with a fresh seed each time; `make chaos` strikes hundreds of times."""

import os
import random

import pytest

from tests.chaos.storm import storm_rounds
from tests.lab.faulty import Faulty

pytestmark = pytest.mark.faults


def test_after_each_storm_every_wish_is_true(faulty: Faulty) -> None:
    seed = int(os.environ.get("KORCH_SEED") or random.SystemRandom().randrange(10**6))
    print(f"KORCH_SEED={seed}")
    storm_rounds(faulty, seed, range(1, 5), faults=5, tell=print)
