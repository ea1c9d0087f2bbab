"""Questions of an `ssh` that korch started (passphrases, passwords, codes), asked by korch where a person is.

`ssh` has no terminal here: it starts the program in SSH_ASKPASS, a fixed script that hands the question over through
one named pipe and takes the answer from another. Both are in the process's private folder.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

SCRIPT: Final = r"""#!/bin/sh
# Made by korch. $1 is ssh's question.
[ "$SSH_ASKPASS_PROMPT" = none ] && exit 0
printf '%s\0' "$1" >"$KORCH_ASKPASS.ask" || exit 1
IFS= read -r answer <"$KORCH_ASKPASS.answer" || exit 1
[ -n "$answer" ] || exit 1
printf '%s\n' "$answer"
"""
_REUSABLE: Final = re.compile(r"Enter passphrase for |.*'s password: $")  # codes are good for one time only


class Answers:
    """What a person typed before, by question: many hosts ask for the same passphrase."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def known(self, question: str, refused: set[str]) -> str:
        """An answer that this connection has not tried; "" when there is none."""
        answer = self._known.get(question, "")
        return "" if answer in refused else answer

    def learn(self, question: str, answer: str) -> None:
        """Remember, where an answer may be used again."""
        if _REUSABLE.match(question):
            self._known[question] = answer


class Questions:
    """Serves the questions of one `ssh` until it is closed. `ask(question, refused)` gives the answer."""

    def __init__(self, stem: Path, ask: Callable[[str, set[str]], Awaitable[str]]) -> None:
        self._stem, self._ask = stem, ask
        self._refused: dict[str, set[str]] = {}
        self._text = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self.asking = 0
        self._pipes: list[int] = []
        try:
            for name in ("ask", "answer"):
                path = f"{stem}.{name}"
                os.mkfifo(path, 0o600)
                self._pipes.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        except BaseException:
            self.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipes[0], self._readable)

    @property
    def environment(self) -> dict[str, str]:
        """For `ssh`."""
        program = self._stem.with_name("askpass")
        if not program.exists():
            fresh = program.with_name("askpass.new")
            fresh.write_text(SCRIPT)
            fresh.chmod(0o700)
            fresh.replace(program)
        return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", "KORCH_ASKPASS": str(self._stem)}

    def close(self) -> None:
        """Answer no more."""
        if len(self._pipes) == 2:
            self._loop.remove_reader(self._pipes[0])
        for task in self._tasks:
            task.cancel()
        while self._pipes:
            os.close(self._pipes.pop())
        for name in ("ask", "answer"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self._stem}.{name}")

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._text += os.read(self._pipes[0], 65536)
        while b"\0" in self._text:
            question, _, self._text = self._text.partition(b"\0")
            task = self._loop.create_task(self._serve(question.decode("utf-8", "replace")), name="a question of ssh")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, question: str) -> None:
        self.asking += 1
        try:
            refused = self._refused.setdefault(question, set())
            answer = await self._ask(question, refused)
            refused.add(answer)
            if self._pipes:
                os.write(self._pipes[1], answer.split("\n")[0].encode() + b"\n")
        finally:
            self.asking -= 1
