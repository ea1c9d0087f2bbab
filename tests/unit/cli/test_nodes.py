import io
import json
import os
import re
import signal
import time

import pytest
import yaml
from msgspec.structs import replace
from rich.console import Console

from korch.cli.nodes import bar, rich_view
from korch.cli.nodes_view import Row, plain, rows_of, troubles
from korch.client.base import NodeSeen
from korch.errors import AuthFailedError, HostUnreachableError

from .world import World, a_load, a_node, a_pod, ago

ANSI = re.compile(r"\x1b\[[0-9;]*m")
UNREACHABLE = HostUnreachableError("n3: no answer from 10.0.0.3:22\n in 10 s", host="n3", hint="Switch it on.")


@pytest.fixture
def lab(world: World) -> World:
    world.seen = [
        NodeSeen(a_node("n1"), a_load(cpu_busy=0.25)),
        NodeSeen(a_node("n2", cordoned=True), a_load(cpu_busy=None, clock_offset_seconds=-7200.0, pressure_cpu=0.1)),
        NodeSeen(a_node("n3"), a_load(), UNREACHABLE),
    ]
    world.put(a_pod("a"), a_pod("b"), a_pod("c", node="n2"), a_pod("d", phase="Failed"))
    return world


def test_plain_columns_and_what_is_wrong(lab: World) -> None:
    result = lab.run("nodes")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "NODE   STATE         CPU   MEMORY   DISK   LOAD1   CPUS   PODS   ENGINE",
        "n1     Ready         25%   50%      25%    0.50    2      2      docker 20.10.24",
        "n2     Cordoned      –     50%      25%    0.50    2      1      docker 20.10.24",
        "n3     Unreachable   –     –        –      –       –      0      docker 20.10.24",
        "",
        "n2: Cordoned for 61m",
        "  -> korch node uncordon n2",
        "n3: Unreachable for 61m: no answer from 10.0.0.3:22 in 10 s",
        "  -> Switch it on.",
    ]


def test_wide(lab: World) -> None:
    row = lab.run("nodes", "-o", "wide").stdout.splitlines()[2]
    assert "10.0.0.1   –     –      amd64   Debian GNU/Linux 12   6.1.0    10%/–/–    -2h     –" in row


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_data_holds_the_objects(lab: World, form: str) -> None:
    text = lab.run("nodes", "-o", form).stdout
    items = (json.loads(text) if form == "json" else yaml.safe_load(text))["items"]
    assert [(item["name"], item["state"], item["pods"]) for item in items] == [
        ("n1", "Ready", 2),
        ("n2", "Cordoned", 1),
        ("n3", "Unreachable", 0),
    ]
    assert items[0]["node"]["kind"] == "Node"
    assert items[0]["load"]["cpuBusy"] == 0.25
    assert items[2]["error"] == {"reason": "Unreachable", "message": str(UNREACHABLE), "hint": "Switch it on."}


def test_only_hosts_within_the_limit_are_looked_at(lab: World) -> None:
    result = lab.run("nodes", "--limit", "n1,n3")
    assert lab.opened[0][1:] == ("n1,n3", True)
    assert lab.looked == [("n1", "n3")]
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == ["NODE", "n1", "n3"]


def test_no_hosts(world: World) -> None:
    assert world.run("nodes").stderr == "The inventory has no hosts.\n"


def test_watch_ends_by_ctrl_c(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.sleep", interrupt)
    result = lab.run("nodes", "--watch")
    assert result.exit_code == 130
    assert result.stdout.count("NODE ") >= 1


def test_watch_is_no_json(world: World) -> None:
    assert world.run("nodes", "--watch", "-o", "json").exit_code == 2


def test_a_state_that_the_store_knows_better_is_kept() -> None:
    (row,) = rows_of([NodeSeen(a_node("n", state="HostKeyChanged"), None, AuthFailedError("x", host="n"))], [], 0)
    assert row.state == "HostKeyChanged"


def test_a_state_of_this_moment_has_no_age() -> None:
    new = a_node("n", state="Unreachable")
    ready = replace(new.status.conditions[0], last_transition_time=ago(0))
    new = replace(new, status=replace(new.status, conditions=(ready,)))
    (line, _) = troubles(rows_of([NodeSeen(new, None, UNREACHABLE)], [], time.time()))
    assert line.startswith("n: Unreachable: ")


def test_a_line_names_its_node_once() -> None:
    seen = NodeSeen(a_node("n", state="NoPermission", message="n: the user may not use the engine"), None)
    assert troubles(rows_of([seen], [], 0))[0].endswith(": the user may not use the engine")


def test_hostile_words_of_a_host_cannot_move_the_cursor() -> None:
    error = HostUnreachableError("n: \x1b[2Jbanner\nmore", host="n", hint="")
    rows = rows_of([NodeSeen(a_node("n"), None, error)], [], 0)
    assert not any("\x1b" in line for line in troubles(rows))
    assert "\x1b" not in plain(rows)


# --- on a terminal ---


def _drawn(rows: tuple[Row, ...], width: int, *, encoding: str = "utf-8", wide: bool = False, **options: object) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, force_terminal=True, highlight=False, legacy_windows=False, **options)  # type: ignore[arg-type]
    console.print(rich_view(rows, console, wide=wide), crop=False)
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def rows(lab: World) -> tuple[Row, ...]:
    return rows_of(lab.seen, [], time.time())


@pytest.mark.parametrize("width", [70, 80, 100, 120, 160])
def test_the_table_fits_and_cuts_nothing(rows: tuple[Row, ...], width: int) -> None:
    text = ANSI.sub("", _drawn(rows, width))
    assert all(len(line) <= width for line in text.split("n2: ")[0].splitlines())
    assert "…" not in text
    for word in ("Ready", "Cordoned", "Unreachable", "25%", "0.50/2", "docker"):
        assert word in text


def test_wider_terminals_show_more(rows: tuple[Row, ...]) -> None:
    assert "of 2Gi" in _drawn(rows, 160)
    assert "of 2Gi" not in _drawn(rows, 80)
    assert "20.10.24" not in _drawn(rows, 80)
    assert "█" in _drawn(rows, 80)
    assert "█" not in _drawn(rows, 65)


def test_a_wide_table_is_never_cut(rows: tuple[Row, ...]) -> None:
    text = ANSI.sub("", _drawn(rows, 80, wide=True))
    assert "…" not in text
    for word in ("NODE", "n1", "Debian GNU/Linux 12", "6.1.0", "LABELS"):
        assert word in text
    assert max(map(len, text.splitlines())) > 80  # the terminal wraps them
    assert "█" in ANSI.sub("", _drawn(rows, 300, wide=True))


def test_an_ascii_terminal_gets_ascii(rows: tuple[Row, ...]) -> None:
    text = ANSI.sub("", _drawn(rows, 160, encoding="ascii"))
    assert "##........" in text
    assert text.isascii()


def test_colours_are_left_out_when_not_wanted(rows: tuple[Row, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[32m" in _drawn(rows, 120)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in _drawn(rows, 120)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.0, "░░░░░░░░░░   0%"),
        (0.03, "█░░░░░░░░░   3%"),
        (0.5, "█████░░░░░  50%"),
        (1.0, "██████████ 100%"),
        (None, "–"),
        (1.7, "██████████ 170%"),
    ],
    ids=str,
)
def test_bars(ratio: float | None, text: str) -> None:
    assert bar(ratio, 10).plain == text
