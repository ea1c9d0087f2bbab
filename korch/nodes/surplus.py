"""Removes what the store proves surplus on a node: containers of pods that are none of its own."""

import asyncio
import dataclasses
from collections.abc import Callable

from korch.engines.names import SANDBOX
from korch.errors import CommandFailedError, CommandTimeoutError
from korch.nodes.machine import Machine
from korch.nodes.plan import Strays
from korch.nodes.slots import SlowLane
from korch.nodes.ward import Ward

SURPLUS_GRACE_S = 30


async def clear_away(
    strays: Strays, machine: Machine, ward: Ward, *, lane: SlowLane, epoch: Callable[[], int]
) -> Strays:
    """Remove what is surplus; the same with what could not be removed. One such pod holds up no other."""

    async def one(uid: str) -> str:
        """Remove all containers of a pod; why they cannot be removed, or ""."""
        there = ward.seen.get(uid, {})
        identity = next((found.identity for found in there.values() if found.identity), None)
        if identity is None:
            return ""
        whole = dataclasses.replace(identity, container="") if SANDBOX in there or len(there) > 1 else identity
        async with lane.slots:
            try:
                await machine.remove(whole, grace_s=SURPLUS_GRACE_S, epoch=epoch())
            except (CommandFailedError, CommandTimeoutError) as error:
                return f"what is left of pod {identity.pod} cannot be removed: {error}"
        ward.drop(uid)
        return ""

    uids = dict.fromkeys(found.identity.uid for found in strays.surplus if found.identity)
    results = await asyncio.gather(*map(one, uids), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return dataclasses.replace(strays, stuck=tuple([text for text in results if isinstance(text, str) and text]))
