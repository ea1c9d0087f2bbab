"""Two names for one machine are refused, and names whose machines were swapped are not."""

import asyncio
from pathlib import Path

import pytest

from korch.errors import InvalidError
from tests.unit.master.fleet_world import Box, BoxFleet, a_fleet
from tests.unit.nodes.virtual_loop import run_virtually

OFF = float("inf")


def known(name: str) -> Box:
    return Box(name, token=f"t-{name}")


def test_names_that_were_swapped_are_no_twins(tmp_path: Path) -> None:
    async def body() -> None:
        a, b = known("n1"), known("n2")
        fleet = a_fleet(tmp_path, a, b)
        await fleet.survey()
        later = BoxFleet(fleet._cluster, {"n1": b, "n2": a})  # another process
        assert [seen.error for seen in await later.survey()] == [None, None]
        assert [seen.error for seen in await BoxFleet(fleet._cluster, later.boxes).survey()] == [None, None]

    run_virtually(body)


def test_what_a_silent_host_is_on_record_as_counts(tmp_path: Path) -> None:
    async def body() -> None:
        a, b = known("n1"), known("n2")
        fleet = a_fleet(tmp_path, a, b)
        await fleet.survey()
        a.after_s = OFF
        later = BoxFleet(fleet._cluster, {"n1": b, "n2": a})
        with pytest.raises(InvalidError, match='"n1" and "n2" are the same machine'):
            await later.survey()

    run_virtually(body)


def test_a_master_that_looks_at_one_after_the_other_gets_along_with_a_swap(tmp_path: Path) -> None:
    async def body() -> None:
        a, b = known("n1"), known("n2")
        fleet = a_fleet(tmp_path, a, b)
        await fleet.attach("n1")
        await fleet.attach("n2")
        fleet.swap({"n1": b, "n2": a})
        with pytest.raises(InvalidError):
            await fleet.attach("n1")  # n2 may be it still
        await fleet.attach("n2")
        await fleet.attach("n1")

    run_virtually(body)


@pytest.mark.parametrize("together", [True, False])
def test_two_names_of_one_new_machine_are_refused_once_it_is_claimed(tmp_path: Path, together: bool) -> None:
    async def body() -> None:
        box = Box("n1")
        fleet = a_fleet(tmp_path, box, Box("n2"))
        fleet.swap({"n1": box, "n2": box})
        begun = fleet.contacts(claim=True) if together else asyncio.gather(fleet.attach("n1"), fleet.attach("n2"))
        with pytest.raises(InvalidError, match='"n1" and "n2" are the same machine'):
            await begun
        assert box.machine.calls == []

    run_virtually(body)
