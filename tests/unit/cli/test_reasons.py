"""The table of reasons says of every reason in the code what it means and what to do, and of no other."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import click
import pytest

from korch.cli import columns, reasons
from korch.cli.main import cli
from korch.controllers import scaling
from korch.engines import errors as engine_errors
from korch.errors import CommandFailedError, EngineDownError, HostRefusedError, InvalidError, KorchError
from korch.nodes import podstatus
from korch.nodes.errors import EngineCallError, pod_reason
from korch.nodes.register import state_of
from korch.nodes.report import ReportState

from .reasons_in_use import ReasonsInUse, writers_in
from .world import World

ROOT = Path(reasons.__file__).parents[1]
PACKAGES = ("controllers", "engines", "master", "nodes", "objects", "resources", "scheduler")
OF_COMMANDS = frozenset({"ContainerNotRunning", "ExecFailed"})  # what a command in a container came to: on no record
WORD = re.compile(r"(?!True$)[A-Z][A-Za-z]+")


def _kinds(*bases: type[KorchError]) -> frozenset[type[KorchError]]:
    found = frozenset(bases)
    return found.union(*(_kinds(*base.__subclasses__()) for base in bases if base.__subclasses__()))


def _words_for(kinds: Iterable[type[KorchError]], word_of: Callable[[KorchError], str]) -> frozenset[str]:
    """What `word_of` says of errors of these kinds; it asks for nothing but their kind."""
    return frozenset(word_of(kind.__new__(kind)) for kind in kinds if kind is not EngineCallError)


def _words_in(function: Callable[..., object]) -> frozenset[str]:
    """The constants of a function that may be reasons."""
    nodes = ast.walk(ast.parse(inspect.getsource(function)))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return frozenset(text for text in texts if WORD.fullmatch(text))


HANDED_ON: frozenset[str] = frozenset()  # read from where it was looked at when it was written
ON_PODS = _kinds(EngineDownError, CommandFailedError, HostRefusedError, InvalidError)  # as in `Keeper._could_not`
KNOWN = {
    ("controllers/autoscaler.py", "decision.limited"): frozenset(get_args(scaling.Limit)),
    ("controllers/deployment.py", "plan.events"): HANDED_ON,
    ("controllers/job.py", "found.reason"): HANDED_ON,
    ("controllers/rollout.py", "plan.events"): HANDED_ON,
    ("engines/errors.py", "_FALLBACK[step]"): frozenset(word for word, _ in engine_errors._FALLBACK.values()),
    ("engines/errors.py", "rule.reason"): HANDED_ON,
    ("master/happenings.py", "found.reason"): HANDED_ON,
    ("master/happenings.py", "now.reason"): HANDED_ON,
    ("nodes/errors.py", "meaning.reason"): HANDED_ON,
    ("nodes/keeper.py", "pod_reason(error)"): _words_for(ON_PODS, pod_reason),
    ("nodes/podstatus.py", "(telling or found)[0]"): _words_in(podstatus._why),
    ("nodes/podstatus.py", "_why_not_ready(pod, first, mains, sights)"): _words_in(podstatus._why_not_ready),
    ("nodes/register.py", "report.state"): frozenset(get_args(ReportState)),
    ("nodes/register.py", "state_of(error)"): _words_for(_kinds(KorchError), state_of),
}


@pytest.fixture(scope="module")
def in_use() -> ReasonsInUse:
    return ReasonsInUse(ROOT, PACKAGES, KNOWN)


def test_every_reason_in_the_code_can_be_found(in_use: ReasonsInUse) -> None:
    assert not in_use.unknown, "where do these reasons come from? Write it plainer, or say it in KNOWN"
    assert in_use.used == KNOWN.keys()


def test_reasons_are_found_in_all_shapes_and_what_cannot_be_followed_is_told(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "some.py").write_text(SOME)
    found = ReasonsInUse(tmp_path, ("part",), {("part/some.py", "plan.word"): frozenset({"FromKnown"})})
    assert found.words.keys() == {f"R{number}" for number in range(1, 20)} | {"FromKnown"}
    assert found.unknown == {("part/some.py", text) for text in ("made_up()", "elsewhere", "x.reason", "*plan.pair")}


SOME = """
R_CONSTANT = "R1"
EVENTS = (("Established", "R2", "text"), ("Accepted", "R3", "text"))
for kind, reason, text in EVENTS:
    Condition(type=kind, reason=reason)

class Found:
    kind: str
    reason: str

class Teller:
    def _event(self, about, reason, text): record_event(about, reason=reason)
    def _wait(self, word): ContainerStateWaiting(reason=word)
    def tell(self, ok, plan, x):
        self._event(x, "R4" if ok else R_CONSTANT, "text")
        self._wait("R5")
        self._wait(word="R6")
        Found("k", "R7")
        show(("Warning", "R8", "text"))
        replace(x, reason=plan.word or "R9")
        local = "R10"
        Condition(reason=local)
        for size in ("1", "2"):
            Condition(reason=f"R1{size}")
        reason, text = ("R13", "") if ok else ("R14", "text")
        return {"reason": "R15"}

def lost(x):
    Condition(reason=made_up())
    Condition(reason=elsewhere)
    Condition(reason=x.reason)
    error(pod_reason="R16")
    Found(*plan.pair)
    if reason := "R17":
        pass

def told(about, reason="R18", *, pod_reason="R19"): pass
"""


def test_no_other_package_writes_reasons() -> None:
    others = [one.name for one in ROOT.iterdir() if one.is_dir() and one.name not in PACKAGES]
    assert writers_in(ROOT, others) == {("cli/whatif.py", "Condition")}  # supposes something, and writes nothing
    assert writers_in(ROOT, PACKAGES)


def test_the_table_has_every_reason_and_no_other(in_use: ReasonsInUse) -> None:
    shown = in_use.words.keys() - OF_COMMANDS | _words_in(columns.node_state) - {"NotReady"}
    assert {word: in_use.words[word] for word in shown - reasons.known()} == {}, "missing in korch/cli/reasons.txt"
    assert reasons.known() - shown == frozenset(), "korch/cli/reasons.txt explains what is not in the code"


def test_the_document_is_current() -> None:
    file = ROOT.parent / "docs" / "REASONS.md"
    assert file.read_text() == reasons.docs(), "write docs/REASONS.md anew: see korch/cli/reasons.py"


@pytest.mark.parametrize("section", reasons.sections(), ids=lambda section: section.place)
def test_a_row_is_whole(section: reasons.Section) -> None:
    names = [one.name for one in section.reasons]
    assert len(names) == len(set(names))
    for one in section.reasons:
        assert WORD.fullmatch(one.name)
        assert one.means.endswith(".")
        assert "|" not in one.means + one.cure


def test_commands_in_the_table_exist() -> None:
    text = " ".join(f"{one.means} {one.cure}" for section in reasons.sections() for one in section.reasons)
    told = re.findall(r"`korch ([^`]+)`", text)
    assert len(told) > 50
    for line in told:
        group: click.Command = cli
        for word in line.split():
            if not isinstance(group, click.Group):
                break
            found = group.get_command(click.Context(group), word)
            assert found is not None, f"korch {line}"
            group = found


def test_what_warns_has_a_cure(in_use: ReasonsInUse) -> None:
    warned = {word for word in reasons.known() if re.search(r"^(Fail|Err|Not)|Error$|Lost$|Down$|Exceeded$", word)}
    assert {one.name for word in warned for one in reasons.about(word) if not one.cure} == set()


def test_why_tells_what_a_reason_means(world: World) -> None:
    result = world.run("why", "EngineDown")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "EngineDown (Nodes)\n  The container engine does not answer.\n  What to do: Start it"
    )
    assert world.run("why", "enginedown").exit_code == 4  # that may be the name of an app


def test_a_reason_of_two_places_is_told_twice(world: World) -> None:
    found = world.run("why", "Completed").stdout
    assert "(Pods and containers)" in found
    assert "(Jobs and CronJobs)" in found


def test_a_word_that_is_none_gets_a_guess(world: World) -> None:
    result = world.run("why", "CrashLoopBackoff2")
    assert result.exit_code == 4
    assert "Did you mean CrashLoopBackOff?" in result.stderr
