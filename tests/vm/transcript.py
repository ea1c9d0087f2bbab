"""What a run did and saw, on the terminal and in a file that is committed: no path, address or name of this machine."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class StepFailedError(Exception):
    """A command or a check did not end as it must."""


@dataclass
class Transcript:
    """Lines so far. `hidden` maps texts of this machine to what stands for them."""

    path: Path
    hidden: Mapping[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print and keep a text."""
        for line in scrubbed(text, self.hidden).splitlines():
            print(line, flush=True)
            self.lines.append(line)

    def title(self, text: str) -> None:
        """A heading."""
        self.say(f"\n# {text}\n")

    def run(
        self,
        shown: str,
        words: Sequence[str],
        *,
        status: int | None = 0,
        timeout_s: float = 600.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: Path | None = None,
    ) -> str:
        """Run a command and keep its output; StepFailedError unless it ends with the status (None: any)."""
        self.say(f"$ {shown}")
        start = time.monotonic()
        with open(stdin or os.devnull, "rb") as source:
            done = subprocess.run(
                words,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                env=None if env is None else dict(env),
                cwd=cwd,
                check=False,
            )
        text = done.stdout.decode(errors="replace").replace("\r", "")
        self.say(text)
        self.say(f"[exit status {done.returncode}, {time.monotonic() - start:.0f} s]")
        if status is not None and done.returncode != status:
            raise StepFailedError(f'"{shown}" ended with {done.returncode} instead of {status}')
        return text

    def check(self, what: str, found: object, wanted: object) -> None:
        """Keep whether these are equal; StepFailedError when they are not."""
        good = found == wanted
        self.say(f"{'ok  ' if good else 'FAIL'}  {what}: {found}")
        if not good:
            raise StepFailedError(f"{what}: {found}, not {wanted}")

    def write(self) -> None:
        """Write the file."""
        self.path.write_text("".join(f"{line}\n" for line in self.lines))


def without_progress(text: str) -> str:
    """The text with the last of many "Progress: 1%" that a terminal would show in one place, on a line of its own."""
    text = re.sub(r"(?:Progress: \d+%\s*)+(?=Progress: \d+%)", "", text)
    return re.sub(r"(Progress: \d+%)(?=[^\s(])", r"\1\n", text)


def scrubbed(text: str, hidden: Mapping[str, str]) -> str:
    """The text without escape sequences, progress, spaces at ends of lines, and this machine's own texts."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = without_progress(text)
    for own in sorted(hidden, key=len, reverse=True):  # the longest first
        text = text.replace(own, hidden[own])
    return "\n".join(line.rstrip() for line in text.split("\n"))


def finish(transcript: Transcript, error: BaseException | None) -> int:
    """Write the file with the verdict as its last line; the exit status."""
    if error is not None:
        transcript.say(f"\nFAILED: {error}")
    else:
        transcript.say("\nPASSED")
    transcript.write()
    sys.stdout.flush()
    return 0 if error is None else 1
