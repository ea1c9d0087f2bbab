"""What is committed of a run on virtual machines: the truth, without this machine's own texts."""

import sys
from pathlib import Path

import pytest

from tests.vm.transcript import StepFailedError, Transcript, finish, scrubbed
from tests.vm.vagrant import OUTPUT


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    return Transcript(tmp_path / "last.txt", {str(tmp_path): "WORK"})


def test_own_texts_are_replaced_longest_first() -> None:
    hidden = {"/home/ann": "HOME", "/home/ann/vm": "WORK"}
    assert scrubbed("disk /home/ann/vm/a, key /home/ann/k", hidden) == "disk WORK/a, key HOME/k"


def test_colours_and_trailing_spaces_go() -> None:
    assert scrubbed("\x1b[1mbold\x1b[0m  \n ok ", {}) == "bold\n ok"


def test_of_progress_the_last_is_kept() -> None:
    shown = "".join(f"\r\x1b[KProgress: {part}%" for part in range(101)) + "\r\x1b[K==> node1: Creating image\nok"
    assert scrubbed(shown.replace("\r", ""), {}) == "Progress: 100%\n==> node1: Creating image\nok"
    assert scrubbed("Progress: 1%\nProgress: 37%\nfailed", {}) == "Progress: 37%\nfailed"


def test_the_committed_output_has_no_endless_line() -> None:
    text = OUTPUT.read_text("utf-8")
    assert text == "".join(f"{line}\n" for line in scrubbed(text, {}).splitlines())
    assert max(map(len, text.splitlines())) < 1000


def test_a_commands_output_and_status_are_kept(transcript: Transcript, tmp_path: Path) -> None:
    answer = transcript.run("show", ("sh", "-c", f"echo in {tmp_path}; echo and this >&2; exit 3"), status=3)
    assert answer == f"in {tmp_path}\nand this\n"
    assert transcript.lines[:3] == ["$ show", "in WORK", "and this"]
    assert transcript.lines[3].startswith("[exit status 3, ")


def test_another_status_ends_the_run(transcript: Transcript) -> None:
    with pytest.raises(StepFailedError, match='"lie" ended with 1 instead of 0'):
        transcript.run("lie", (sys.executable, "-c", "raise SystemExit(1)"))


def test_a_check_keeps_what_was_found(transcript: Transcript) -> None:
    transcript.check("containers", 2, 2)
    with pytest.raises(StepFailedError, match="containers: 1, not 2"):
        transcript.check("containers", 1, 2)
    assert transcript.lines == ["ok    containers: 2", "FAIL  containers: 1"]


def test_the_verdict_is_the_last_line_of_the_file(transcript: Transcript) -> None:
    transcript.say("one")
    assert finish(transcript, None) == 0
    assert transcript.path.read_text() == "one\n\nPASSED\n"


def test_a_failure_is_written_too(transcript: Transcript) -> None:
    assert finish(transcript, StepFailedError("the lamp is dark")) == 1
    assert transcript.path.read_text().splitlines()[-1] == "FAILED: the lamp is dark"
