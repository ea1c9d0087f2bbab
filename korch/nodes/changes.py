"""Containers that are to be replaced as their image was changed while their pod ran. Pure."""

from korch.engines.observed import ObservedContainer
from korch.resources.images import first_images, made_hash
from korch.resources.pod import Pod
from korch.resources.podstate import statuses_of


def is_outdated(pod: Pod, found: ObservedContainer) -> bool:
    """Whether it was made with another image than the pod says now.

    Only a change that is on record counts: what differs for other reasons, as in pods that were adopted, runs on.
    """
    who = found.identity
    if who is None or who.container not in first_images(pod):
        return False
    return who.spec_hash != made_hash(pod, who.container)


def is_under_way(pod: Pod, found: ObservedContainer) -> bool:
    """Whether it is outdated and was ended for that: whoever meets it so goes on, whatever the restart policy says."""
    if found.state == "running" or not is_outdated(pod, found):
        return False
    name = found.identity.container if found.identity is not None else ""
    return any(status.name == name and status.state.waiting is not None for status in statuses_of(pod))
