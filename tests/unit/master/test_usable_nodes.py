"""The machines that answer, one by one; and leaving early when some never do."""

import asyncio
from typing import Any

import pytest

from korch.master.fleet import Fleet


class SilentFleet(Fleet):
    """One host answers at once, the look at the others never ends."""

    def __init__(self) -> None:
        self._contacts, self.errors, self._arrivals, self._looking = {}, {}, [], None
        self.gave_up = False

    def machine(self, node: str) -> Any:
        return node

    async def contacts(self, *, claim: bool) -> Any:
        for queue in self._arrivals:
            queue.put_nowait("n1")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.gave_up = True
            raise


def test_who_is_cancelled_while_nobody_answers_does_not_wait_for_the_silent_ones() -> None:
    async def scenario() -> None:
        fleet = SilentFleet()

        async def use() -> None:
            async for _ in fleet.usable():
                continue  # and on to the next, which never comes

        task = asyncio.create_task(use())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert fleet.gave_up

    asyncio.run(scenario())


def test_who_is_cancelled_at_work_on_one_can_leave_too() -> None:
    async def scenario() -> None:
        fleet = SilentFleet()

        async def use() -> None:
            machines = fleet.usable()
            assert await anext(machines) == "n1"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                fleet.stop_looking()
                raise
            finally:
                await machines.aclose()

        task = asyncio.create_task(use())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert fleet.gave_up

    asyncio.run(scenario())
