"""Clients are told before a container hears of its end: no endpoint may lead to a pod whose end has begun."""

import asyncio

from korch.objects.view import View
from korch.resources.pod import Pod
from korch.resources.service import MANAGED_BY, MANAGER, EndpointSlice

WAIT_S = 2.0  # for the endpoints to be written: nothing is worth holding up an end for longer
_LOOK_EVERY_S = 0.01


def is_endpoint(view: View, pod: Pod) -> bool:
    """Whether a slice that korch keeps leads to it."""
    return any(
        endpoint.target_ref is not None and endpoint.target_ref.uid == pod.metadata.uid
        for found in view.all(EndpointSlice, pod.metadata.namespace)
        if found.metadata.labels.get(MANAGED_BY) == MANAGER
        for endpoint in found.endpoints
    )


async def out_of_endpoints(view: View, pod: Pod, *, within_s: float = WAIT_S) -> bool:
    """Wait until no endpoint leads to a pod that is marked for deletion; False when that took too long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while is_endpoint(view, pod):
        if loop.time() >= until:
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True
