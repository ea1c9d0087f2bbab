"""How long a run of the tests goes on breaking things at random, and what makes it the same again."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
KILLS_S, STORM_S = 120.0, 180.0  # of the five minutes that `make test` has for random faults


def seed() -> int:
    """What all dice of this run are made from: KORCH_SEED, which the run's first line shows (`tests/conftest.py`)."""
    return int(os.environ["KORCH_SEED"])


def within(seconds: float, items: Iterable[T], clock: Callable[[], float] = time.monotonic) -> Iterator[T]:
    """The items, as long as the time is not used up; the first one always. Nobody fails for what is left out."""
    until = clock() + seconds
    for number, item in enumerate(items):
        if number and clock() >= until:
            print(f"{seconds:.0f} s are used up: no more than {number}")
            return
        yield item
