"""What is asked of an engine's log, and how the answer goes out."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from korch.api.answers import Refusal
from korch.api.streams.door import LogWish, Seen, log_script, parse_look
from korch.api.streams.logs import LogOptions, LogResponse, log_options, wish_of
from korch.api.streams.targets import Target, container_of, must_have_begun
from korch.errors import HostUnreachableError
from korch.resources.meta import ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
)
from tests.unit.api.streams.fakes import FakeStream

ENDED = ContainerState(terminated=ContainerStateTerminated(exit_code=1, started_at="2026-01-01T00:00:10Z"))
TEN_S = 1767225610.0
RUNS = ContainerStatus(name="c", state=ContainerState(running=ContainerStateRunning()))
AGAIN = ContainerStatus(name="c", state=RUNS.state, last_state=ENDED, restart_count=1)
WAITS = ContainerStatus(
    name="c",
    state=ContainerState(waiting=ContainerStateWaiting(reason="CrashLoopBackOff")),
    last_state=ENDED,
    restart_count=1,
    container_id="x",
)


def test_options_of_a_query() -> None:
    query = {"follow": "true", "tailLines": "0", "sinceSeconds": "5", "limitBytes": "9", "timestamps": "false"}
    assert log_options(query, "p") == LogOptions(follow=True, tail=0, since_s=5, limit_bytes=9)
    assert log_options({"sinceTime": "2026-01-01T00:00:10.123456789Z"}, "p").since == pytest.approx(TEN_S + 0.123456)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"tailLines": "-1"}, 422),
        ({"limitBytes": "0"}, 422),
        ({"sinceSeconds": "0"}, 422),
        ({"sinceSeconds": "1", "sinceTime": "2026-01-01T00:00:10Z"}, 422),
        ({"tailLines": "x"}, 400),
        ({"tailLines": "²"}, 400),
        ({"tailLines": "9" * 30}, 400),
        ({"sinceTime": "yesterday"}, 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_options_that_make_no_sense(query: dict[str, str], code: int) -> None:
    with pytest.raises(Refusal) as refused:
        log_options(query, "p")
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("options", "seen", "status", "wish"),
    [
        (LogOptions(tail=3), Seen("running", 100, 50, None), RUNS, LogWish(tail=3)),
        (LogOptions(), Seen("running", 100, 50, 40), AGAIN, LogWish(since=45)),
        (LogOptions(since_s=20), Seen("running", 100, 50, 40), AGAIN, LogWish(since=80)),
        (LogOptions(since=30), Seen("running", 100, 50, 40), AGAIN, LogWish(since=45)),
        (LogOptions(previous=True), Seen("running", 100, 50, 40), AGAIN, LogWish(since=TEN_S, until=45)),
        (LogOptions(previous=True, follow=True), Seen("running", 9, 5, 4), AGAIN, LogWish(since=TEN_S, until=4.5)),
        (LogOptions(), Seen("exited", 100, 50, 60), WAITS, LogWish(since=49.9)),
        (LogOptions(previous=True), Seen("exited", 100, 50, 60), WAITS, LogWish(since=49.9)),
        (LogOptions(previous=True), Seen("running", 100, 50, None), AGAIN, None),
        (LogOptions(), Seen("created", 100, None, None), None, LogWish()),
        (LogOptions(since_s=200), Seen("running", 100, 50, None), RUNS, LogWish(since=0)),
    ],
)
def test_which_part_of_the_log_is_meant(
    options: LogOptions, seen: Seen, status: ContainerStatus | None, wish: LogWish | None
) -> None:
    assert wish_of(options, seen, status) == wish


def test_words_for_the_engine() -> None:
    assert log_script("docker", "n", LogWish(follow=True, tail=2, since=1.5, timestamps=True)).args == (
        *("docker", "logs", "--follow", "--tail", "2", "--since", "1.500000000", "--timestamps", "n"),
    )
    cut = log_script("podman", "n", LogWish(tail=2, until=1.5))
    assert cut.args == ("2", "podman", "logs", "--until", "1.500000000", "n")
    assert "tail -n" in cut.text


def test_what_a_look_prints() -> None:
    text = '100\nrunning|"2026-01-01T00:00:10.5Z"|"0001-01-01T00:00:00Z"\n'
    assert parse_look(text) == Seen("running", 100, TEN_S + 0.5, None)
    assert parse_look("100\n") is None
    assert parse_look("") is None


def target(*statuses: ContainerStatus, names: tuple[str, ...] = ("c",), wanted: str = "") -> Target:
    spec = PodSpec(node_name="n1", containers=tuple(Container(name=name) for name in names))
    pod = Pod(metadata=ObjectMeta(name="p"), spec=spec, status=PodStatus(container_statuses=statuses))
    return container_of(pod, wanted)


def test_which_container_is_meant() -> None:
    assert target(names=("a", "b"), wanted="b").container == "b"
    with pytest.raises(Refusal) as refused:
        target(names=("a", "b"))
    assert refused.value.message == "a container name must be specified for pod p, choose one of: [a b]"
    with pytest.raises(Refusal) as refused:
        target(wanted="x")
    assert refused.value.message == "container x is not valid for pod p"


def test_a_log_that_cannot_be_there() -> None:
    waiting = ContainerStatus(name="c", state=ContainerState(waiting=ContainerStateWaiting(reason="ImagePullBackOff")))
    with pytest.raises(Refusal) as refused:
        must_have_begun(target(waiting), previous=False)
    assert refused.value.message == 'container "c" in pod "p" is waiting to start: ImagePullBackOff'
    with pytest.raises(Refusal) as refused:
        must_have_begun(target(RUNS), previous=True)
    assert refused.value.message == 'previous terminated container "c" in pod "p" not found'
    must_have_begun(target(WAITS), previous=False)
    must_have_begun(target(AGAIN), previous=True)


class Answered:
    """What an answer says to a client that may go."""

    def __init__(self, stream: FakeStream, *, limit_bytes: int | None = None, fails: bool = False) -> None:
        self.stream, self.fails, self.left = stream, fails, False
        self.status, self.body, self.whole = 0, b"", False
        self.going = asyncio.Event()
        self.response = LogResponse(self.start, target(RUNS), limit_bytes)

    @asynccontextmanager
    async def start(self) -> AsyncIterator[FakeStream]:
        if self.fails:
            raise HostUnreachableError("n1 is gone", host="n1")
        try:
            yield self.stream
        finally:
            self.left = True

    async def receive(self) -> MutableMapping[str, Any]:
        await self.going.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.whole = not message.get("more_body", False)

    async def run(self) -> None:
        async with asyncio.timeout(20):
            await self.response({"type": "http"}, self.receive, self.send)


def test_the_answer_is_what_the_program_prints_up_to_the_limit() -> None:
    async def main() -> None:
        stream = FakeStream()
        stream.print(1, b"hello\n")
        stream.print(1, b"world\n")
        cut = Answered(stream, limit_bytes=8)
        await cut.run()
        assert (cut.status, cut.body, cut.whole, cut.left) == (200, b"hello\nwo", True, True)

    asyncio.run(main())


def test_a_client_that_goes_ends_the_command() -> None:
    async def main() -> None:
        answered = Answered(FakeStream())
        answered.going.set()
        await answered.run()
        assert answered.left

    asyncio.run(main())


def test_a_node_that_goes_is_told() -> None:
    async def main() -> None:
        late = Answered(FakeStream(status=-1))
        late.stream.print(1, b"hello\n")
        late.stream.end()
        await late.run()
        assert (late.status, late.body.decode().split("\n")[0], late.whole) == (200, "hello", True)
        assert b"n1: the connection broke" in late.body
        early = Answered(FakeStream(), fails=True)
        await early.run()
        assert (early.status, early.whole) == (503, True)
        assert b"n1 is gone" in early.body

    asyncio.run(main())
