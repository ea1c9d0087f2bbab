"""Running the two programs that know inventories: ansible-inventory and vagrant."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from korch.errors import SetupError

PROGRAM_TIMEOUT_S = 120.0  # cloud inventory plugins ask remote APIs


class Ran(msgspec.Struct, frozen=True):
    """How a local program ended, and its output as text."""

    status: int
    stdout: str
    stderr: str


Runner = Callable[[Sequence[str], Path | None, Mapping[str, str]], Ran]
"""(argv, folder to run in, variables added to the environment) → how it ended; FileNotFoundError when there is none."""


def run_program(argv: Sequence[str], folder: Path | None, variables: Mapping[str, str]) -> Ran:
    """Run to the end, without a terminal. Raises FileNotFoundError when the program is missing."""
    try:
        done = subprocess.run(
            list(argv),
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{argv[0]} did not end within {PROGRAM_TIMEOUT_S:.0f} s", hint="Run it by hand.") from error
    return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def find_program(name: str) -> str | None:
    """Path of a program: beside this Python (a virtual environment need not be activated), else on PATH."""
    beside = Path(sys.executable).parent / name
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which(name)
