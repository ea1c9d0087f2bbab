"""What a machine makes of answers that say little."""

import asyncio
from typing import Any

import pytest

from korch.engines.base import Command, Script
from korch.errors import EngineDownError
from korch.nodes.machine import Machine
from korch.ssh.base import Result
from tests.unit.nodes.fake_machine import CLUSTER


class Answering:
    """A transport that gives one answer to whatever is asked."""

    host = "n1"

    def __init__(self, text: str) -> None:
        self.text = text

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        return Result(0, self.text.encode(), b"")


def machine(text: str) -> Machine:
    transport: Any = Answering(text)
    return Machine(transport, CLUSTER, engine="docker", become=False)


@pytest.mark.parametrize("word", ["1", "124", "137"])
def test_a_look_that_runs_out_of_time_and_says_nothing_tells_of_an_engine_that_hangs(word: str) -> None:
    hung = machine(f"@korch begin\n@korch look {word}\n\n@korch clock\n1.0\n@korch end\n")
    with pytest.raises(EngineDownError, match="did not answer"):
        asyncio.run(hung.containers())
    with pytest.raises(EngineDownError, match="did not answer"):
        asyncio.run(hung.container("korch_web"))


def test_a_container_that_is_not_there_is_none() -> None:
    found = machine("@korch begin\n@korch look 1\nError: No such container: korch_web\n@korch clock\n1.0\n@korch end\n")
    assert asyncio.run(found.container("korch_web")) is None
