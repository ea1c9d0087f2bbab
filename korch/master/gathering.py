"""The same call on many nodes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from korch.errors import FencedError, KorchError, at

A = TypeVar("A")
T = TypeVar("T")


async def each(items: Mapping[str, A], call: Callable[[str, A], Awaitable[T]]) -> dict[str, T | KorchError]:
    """`call(name, item)` for all at the same time: a result or an error for each. `FencedError` ends them all."""

    async def one(name: str, item: A) -> T | KorchError:
        try:
            return await call(name, item)
        except FencedError:
            raise
        except KorchError as error:
            return error

    answers = await asyncio.gather(*(one(name, item) for name, item in items.items()))
    return dict(zip(items, answers, strict=True))


def failures(results: Mapping[str, T | KorchError]) -> tuple[str, ...]:
    """A sentence for each node that could not be worked with."""
    return tuple(at(name, found) for name, found in sorted(results.items()) if isinstance(found, KorchError))
