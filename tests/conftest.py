"""For all tests: signals as a terminal gives them, whoever started the run (`nohup`, a script's `&`); short paths."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """As `tmp_path`, where the path of a socket must fit into 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="k-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)
