"""The rule of mass loss: when most nodes are lost at once, it is this machine's network, and nothing moves."""

import pytest

from korch.nodes.life import Sight, is_mass_loss


def sights(*, lost_now: int, alive: int, lost_long_ago: int = 0, never_ready: int = 0) -> list[Sight]:
    return [
        *(Sight(f"now{number}", 5.0, True) for number in range(lost_now)),
        *(Sight(f"old{number}", 600.0, True) for number in range(lost_long_ago)),
        *(Sight(f"new{number}", 0.0, False) for number in range(never_ready)),
        *(Sight(f"up{number}", None, True) for number in range(alive)),
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(sights(lost_now=1, alive=2), False, id="one of three"),
        pytest.param(sights(lost_now=2, alive=1), True, id="two of three"),
        pytest.param(sights(lost_now=3, alive=0), True, id="all"),
        pytest.param(sights(lost_now=1, alive=0), False, id="the only one: at least two are a mass"),
        pytest.param(sights(lost_now=2, alive=2), False, id="half is not more than half"),
        pytest.param(sights(lost_now=1, alive=2, lost_long_ago=20), False, id="halted long ago does not count"),
        pytest.param(sights(lost_now=2, alive=1, lost_long_ago=20), True, id="nor does it hide a mass"),
        pytest.param(sights(lost_now=1, alive=1, never_ready=5), False, id="never Ready does not count"),
    ],
)
def test_mass_loss(found: list[Sight], expected: bool) -> None:
    assert is_mass_loss(found) is expected
    assert is_mass_loss(found[::-1]) is expected
