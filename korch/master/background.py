"""Tasks that live as long as a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Done(Exception):
    """Ends the group: the block was left."""


async def _end() -> None:
    raise _Done


@asynccontextmanager
async def background() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose tasks are cancelled when the block is left; the first error of any comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
            group.create_task(_end())
    except BaseExceptionGroup as errors:
        first = _first(errors)
        if not isinstance(first, _Done):
            raise first from None


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that matters: any other before the one that ends the group."""
    leaves: list[BaseException] = []
    for error in errors.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((leaf for leaf in leaves if not isinstance(leaf, _Done)), leaves[0])
