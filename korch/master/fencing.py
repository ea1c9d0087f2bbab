"""The fencing hook: a command of the user's that makes sure that a lost node is really off.

Pods whose data lives on the node are replaced only after it has succeeded (or `korch node lost`).
"""

import asyncio
import logging
import shlex
from collections.abc import Callable

from korch.errors import InvalidError

log = logging.getLogger(__name__)

TIME_S = 120.0


class FencingHook:
    """`command` is split into words as a shell would, and called with the node's name as one more word."""

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise InvalidError(f"the fencing command {command!r} cannot be read: {error}") from error
        if not self._words:
            raise InvalidError("the fencing command is empty", hint="An example: --fence 'vagrant halt --force'.")
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, node: str, done: Callable[[str], None]) -> None:
        """Call it for `node` beside everything else; `done(node)` once it has succeeded."""
        if node not in self._running or self._running[node].done():
            self._running[node] = asyncio.create_task(self._call(node, done), name=f"fence-{node}")

    async def _call(self, node: str, done: Callable[[str], None]) -> None:
        words = (*self._words, node)
        told = shlex.join(words)
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            log.error("%s: the fencing command cannot be run: %s", node, error)
            return
        try:
            async with asyncio.timeout(TIME_S):
                out, _ = await process.communicate()
        except TimeoutError:
            log.error("%s: %s did not end within %.0f s; pods with data there stay", node, told, TIME_S)
            return
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode == 0:
            log.warning("%s: is off, says %s", node, told)
            done(node)
        else:
            last = out.decode("utf-8", "replace").strip().rpartition("\n")[2]
            log.error("%s: %s failed with status %s: %s", node, told, process.returncode, last)
