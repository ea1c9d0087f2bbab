"""One thread that is started by its first job, takes waiting jobs in batches, and can be drained and ended.

And the way back: how a thread's answers reach those who wait for them in an event loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")


class Worker(Generic[Job]):
    """`handle` gets 1 to `batch` jobs at a time, in order, always in the same thread; it must not raise.

    `finish` runs in that thread after the last job. Several threads may submit.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[Job]], None],
        *,
        batch: int = 1,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._handle, self._batch, self._finish = name, handle, batch, finish
        self._jobs: deque[Job] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._idle = True
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether a job would have to wait."""
        with self._ready:
            return bool(self._jobs) or not self._idle

    def submit(self, job: Job) -> None:
        """Queue a job. After `stop` it would never run: the caller keeps the two apart."""
        with self._ready:
            self._jobs.append(job)
            if self._thread is None:
                # A daemon: a process that forgets to close, or is interrupted, still ends.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._ready.notify()

    def stop(self, done: Callable[[], object]) -> None:
        """Run what is queued, then `finish`, then `done` (in the thread, or here when it never started)."""
        with self._ready:
            self._stopping, self._done = True, done
            if self._thread is not None:
                self._ready.notify()
                return
        done()

    def _run(self) -> None:
        while jobs := self._next():
            self._handle(jobs)
        try:
            self._finish()
        finally:
            self._done()

    def _next(self) -> list[Job]:
        with self._ready:
            self._idle = True
            while not self._jobs and not self._stopping:
                self._ready.wait()
            self._idle = False
            return [self._jobs.popleft() for _ in range(min(self._batch, len(self._jobs)))]


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> bool:
    """Have `loop` make a call, from any thread; False when it is closed, so that nobody waits for it."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


def settle(answers: Iterable[tuple[asyncio.Future[Any], object]]) -> None:
    """Give each future its answer, or raise it there when it is an exception; cancelled ones get nothing."""
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
