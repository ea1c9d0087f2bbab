"""Twenty random faults around two masters, from the seed of the run; `make chaos` strikes hundreds of times."""

import pytest

from tests.chaos.budget import STORM_S, seed, within
from tests.chaos.storm import storm_rounds
from tests.lab.faulty import Faulty

pytestmark = pytest.mark.faults


def test_after_each_storm_every_wish_is_true(faulty: Faulty) -> None:
    storm_rounds(faulty, seed(), within(STORM_S, range(1, 5)), faults=5, tell=print)
