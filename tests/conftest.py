"""For all tests: signals as a terminal gives them, whoever started the run (`nohup`, a script's `&`); a seed for random
faults, the same in all workers; short paths."""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before workers start, which inherit it. The header of a quiet run is not shown, so this is a line of its own."""
    seed = os.environ.get("KORCH_SEED") or str(random.SystemRandom().randrange(10**6))
    os.environ["KORCH_SEED"] = seed
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput"):
        terminal.write_line(f"KORCH_SEED={seed} (random faults; the same again with that in the environment)")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """As `tmp_path`, where the path of a socket must fit into 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="k-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)
