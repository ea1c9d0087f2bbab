"""Real complaints of Docker 20.10/28 and Podman 4.3, and what they mean."""

from pathlib import Path

import pytest

from korch.engines.errors import Step, explain, last_line
from korch.engines.wish import EngineName

CASES = [
    tuple(line.replace("\\n", "\n").split(" | ", 4))
    for line in Path(__file__).with_name("complaints.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("engine", "step", "reason", "text", "words"), CASES, ids=[case[4][-50:] for case in CASES])
def test_complaints_are_understood(engine: EngineName, step: Step, reason: str, text: str, words: str) -> None:
    found = explain(words, step=step, image="reg/web:1", engine=engine)
    assert found.reason == reason
    assert text in found.message
    assert "{" not in found.message + found.hint


def test_only_the_engine_as_a_whole_is_a_node_state() -> None:
    states = {explain(words, step=step, engine=engine).node_state for engine, step, _, _, words in CASES}
    assert states == {"", "EngineDown", "NoPermission", "EngineMissing"}
    pulled = [explain(words, step=step).node_state for _, step, _, _, words in CASES if step != "look"]
    assert set(pulled) == {""}


def test_an_unreachable_registry_is_transient_and_a_missing_image_is_not() -> None:
    assert explain("dial tcp 1.2.3.4:443: i/o timeout", step="pull").transient
    assert not explain("manifest unknown", step="pull").transient


def test_the_last_line_is_the_telling_one_and_bounded() -> None:
    assert last_line("Error response from daemon: task 1: already exists\nError: failed to start containers: x\n") == (
        "task 1: already exists"
    )
    text = "docker: Error response from daemon: boom\n\nRun 'docker run --help' for more information\n"
    assert last_line(text) == "boom"
    text = (
        "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock:"
        ' Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/i": dial unix /var/run/docker.sock: connect: permission denied'
    )
    assert last_line(text).endswith(
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
    )
    assert len(last_line("x" * 5000)) == 300
    assert last_line("") == ""
