"""The fencing hook: a command of the user's that makes sure that a lost node is really off.

Pods whose data lives on the node are replaced only after it has succeeded (or `korch node lost`).
"""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
from collections.abc import Callable, Sequence

from korch.errors import InvalidError

log = logging.getLogger(__name__)

TIME_S = 120.0
AGAIN_AFTER_S = 30.0


class FencingHook:
    """`command` is split into words as a shell would, and called with the node's name as one more word."""

    def __init__(self, command: str, *, time_s: float = TIME_S, again_after_s: float = AGAIN_AFTER_S) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            hint = "It is split into words as a shell would: close what is quoted."
            raise InvalidError(f"the fencing command {command!r} cannot be read: {error}", hint=hint) from error
        if not self._words:
            raise InvalidError("the fencing command is empty", hint="An example: --fence 'vagrant halt --force'.")
        self._time_s, self._again_after_s = time_s, again_after_s
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tried_at: dict[str, float] = {}  # the end of the last try, on the event loop's clock

    def start(self, node: str, done: Callable[[str], None]) -> None:
        """Call it for `node` beside everything else, unless it runs or has just failed; `done(node)` on success."""
        loop = asyncio.get_running_loop()
        ended = self._tried_at.get(node)
        if node not in self._running and (ended is None or loop.time() - ended >= self._again_after_s):
            self._running[node] = asyncio.create_task(self._attempt(node, done), name=f"fence-{node}")

    def forget(self, node: str) -> None:
        """The node is back: the next time that it is lost is another matter. A call under way goes on to its end."""
        self._tried_at.pop(node, None)

    async def close(self) -> None:
        """End what still runs."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _attempt(self, node: str, done: Callable[[str], None]) -> None:
        try:
            if await self._call(node):
                done(node)
        finally:
            self._tried_at[node] = asyncio.get_running_loop().time()
            del self._running[node]

    async def _call(self, node: str) -> bool:
        """Whether it succeeded."""
        words = (*self._words, node)
        told = shlex.join(words)
        log.warning("%s: running the fencing command: %s", node, told)
        try:
            process = await _started(words)
        except OSError as error:
            log.error("%s: the fencing command cannot be run: %s", node, error)
            return False
        try:
            async with asyncio.timeout(self._time_s):
                out, _ = await process.communicate()
        except TimeoutError:
            log.error("%s: %s did not end within %.0f s; pods with data there stay", node, told, self._time_s)
            return False
        finally:
            await _end(process)
        if process.returncode == 0:
            log.warning("%s: is off, says %s", node, told)
            return True
        last = out.decode("utf-8", "replace").strip().rpartition("\n")[2]
        log.error("%s: %s failed with status %s: %s", node, told, process.returncode, last)
        return False


async def _started(words: Sequence[str]) -> asyncio.subprocess.Process:
    """The running command, in a session of its own; none is left behind when this is cancelled half way."""
    start = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(start)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await _end(await start)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """It has ended, with all that it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
