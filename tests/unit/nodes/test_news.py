"""What a session's lines mean, however the network cuts them."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.nodes.news import LINE_LIMIT_BYTES, EngineWatch, News, NewsReader, Pulse, Sample

BEGIN = b"@korch begin\n@korch session 4\n"
LOAD = b"""/proc/loadavg:0.50 0.25 0.10 1/100 4242
/proc/uptime:1018.11 990.00
/proc/stat:cpu  10 0 20 60 10 0 0 0 0 0
/proc/pressure/cpu:some avg10=25.00 avg60=0.00 avg300=0.00 total=0
/proc/meminfo:MemTotal:        2048 kB
/proc/meminfo:MemFree:          100 kB
/proc/meminfo:MemAvailable:    1024 kB
.
"""
DISK = b"disk Filesystem 1024-blocks Used Available Capacity Mounted on\ndisk /dev/my disk 1000 400 600 40% /var/lib\n"
EVENT = json.dumps({"Status": "die", "ID": "abc", "Attributes": {"name": "k", "exitCode": "1"}}).encode() + b"\n"


def read(*pieces: tuple[int, bytes]) -> list[News]:
    reader = NewsReader()
    return [news for stream, data in pieces for news in reader.feed(stream, data)]


def test_a_sample_holds_what_a_load_object_needs() -> None:
    (sample,) = read((1, BEGIN + LOAD))
    assert isinstance(sample, Sample)
    facts = sample.facts
    assert (facts.load, facts.cpu_count, facts.cpu_ticks, facts.uptime_s) == ((0.5, 0.25, 0.1), 4, (30, 100), 1018.11)
    assert (facts.memory_total_bytes, facts.memory_available_bytes) == (2 << 20, 1 << 20)
    assert (facts.pressure_cpu, facts.pressure_memory) == (0.25, None)
    assert (sample.disk_total_bytes, sample.disk_free_bytes) == (0, 0)


def test_the_disk_is_told_with_every_later_sample() -> None:
    found = read((1, BEGIN + DISK + LOAD + b".\n" + LOAD))
    assert [type(news) for news in found] == [Sample, Pulse, Sample]
    assert {(n.disk_total_bytes, n.disk_free_bytes) for n in found if isinstance(n, Sample)} == {(1024000, 614400)}


def test_the_engines_stream_comes_and_goes() -> None:
    assert read((1, BEGIN + b"events up\n.\nevents down\n")) == [EngineWatch(True), Pulse(), EngineWatch(False)]


def test_an_event_is_only_read_from_stderr() -> None:
    assert read((1, EVENT)) == []
    (event,) = read((2, b"Terminated\n" + EVENT))
    assert (event.name, event.exit_code) == ("k", 1)  # type: ignore[union-attr]


def test_a_line_without_end_is_not_kept() -> None:
    reader = NewsReader()
    for _ in range(40):
        reader.feed(2, b"x" * (LINE_LIMIT_BYTES // 16))
    assert sum(map(len, reader._unread.values())) <= LINE_LIMIT_BYTES * 17 // 16
    assert [type(news).__name__ for news in reader.feed(2, b"\n" + EVENT)] == ["EngineEvent"]


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"@korch session many", b"@korch session 0", b"disk", b"events", b"/proc/", b"/proc/loadavg:a b c"],
)
def test_damaged_lines_are_no_error(line: bytes) -> None:
    found = read((1, line + b"\n.\n"))
    assert isinstance(found[-1], Pulse | Sample)


STREAMS = {1: BEGIN + LOAD + b"events up\n.\n" + DISK + b".\r\n" + LOAD, 2: EVENT * 3 + b"noise\n" + EVENT}


@given(st.sampled_from([1, 2]), st.lists(st.integers(0, 1200), max_size=12))
def test_any_cut_gives_the_same_news(stream: int, cuts: list[int]) -> None:
    data = STREAMS[stream]
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    pieces = [(stream, data[a:b]) for a, b in pairwise(edges)]
    assert read(*pieces) == read((stream, data))
