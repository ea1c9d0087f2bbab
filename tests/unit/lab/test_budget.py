"""Random faults: a share of five minutes, and a seed that everybody sees."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.chaos.budget import KILLS_S, STORM_S, within


def test_nothing_new_is_begun_when_the_time_is_used_up() -> None:
    now = [100.0]
    begun = []
    for item in within(60.0, range(10), lambda: now[0]):
        begun.append(item)
        now[0] += 25.0
    assert begun == [0, 1, 2]
    assert list(within(0.0, "abc", lambda: now[0])) == ["a"]
    assert list(within(60.0, "abc", lambda: now[0])) == ["a", "b", "c"]
    assert KILLS_S + STORM_S == 300.0


def test_a_run_shows_its_seed_and_all_its_workers_have_that_one(tmp_path: Path) -> None:
    written = "import os\ndef test_{0}():\n    open('seed{0}', 'w').write(os.environ['KORCH_SEED'])\n"
    for name in "ab":
        (tmp_path / f"test_{name}.py").write_text(written.format(name))
    root = Path(__file__).parents[3]
    environ = {key: value for key, value in os.environ.items() if key != "KORCH_SEED"}
    words = ("-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", "--rootdir", ".")
    run = subprocess.run(
        (sys.executable, "-m", "pytest", "-c", os.devnull, *words, "."),
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    shown = re.findall(r"KORCH_SEED=(\d+)", run.stdout)
    assert run.returncode == 0, run
    assert [(tmp_path / f"seed{name}").read_text() for name in "ab"] == [shown[0], shown[0]]
    assert len(shown) == 1
