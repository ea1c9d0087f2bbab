"""What goes on beside the looks at nodes: calls that take their time, none too often, and never too many at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container
from types import TracebackType
from typing import Self

from korch.errors import FencedError, KorchError

log = logging.getLogger(__name__)

Call = Callable[[str], Awaitable[None]]


class Asides:
    """Tasks about nodes that are `watched` (it may change meanwhile). All end with the block that this is entered for.

    A call that fails is over; `FencedError` alone ends the block.
    """

    def __init__(self, watched: Container[str]) -> None:
        self._watched = watched
        self._group = asyncio.TaskGroup()
        self._going: dict[tuple[str, str], list[asyncio.Task[None]]] = {}  # by what is called, and the node
        self._begun_at: dict[tuple[str, str], float] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._group.__aexit__(type_, error, traceback)

    @property
    def names(self) -> set[str]:
        """The nodes that anything was begun about."""
        return {name for _, name in self._begun_at}

    def begin(self, call: Call, name: str, now: float, every_s: float, *, at_once: int = 1) -> bool:
        """Begin `call(name)`; not when so many go on, or one began less than `every_s` ago."""
        key = (call.__name__, name)
        going = [task for task in self._going.get(key, ()) if not task.done()]
        if len(going) >= at_once or now - self._begun_at.get(key, float("-inf")) < every_s:
            return False
        self._begun_at[key] = now
        self._going[key] = [*going, self._group.create_task(self._one(call, name), name=f"{call.__name__}-{name}")]
        return True

    def forget(self, name: str) -> None:
        """The node is watched no more."""
        for key in [key for key in self._begun_at if key[1] == name]:
            del self._begun_at[key], self._going[key]

    async def _one(self, call: Call, name: str) -> None:
        try:
            if name in self._watched:
                await call(name)
        except FencedError:
            raise
        except (KorchError, OSError) as error:
            log.debug("%s: %s", name, error)
        except Exception:
            log.exception("%s: judging it failed; this is a bug in korch", name)
