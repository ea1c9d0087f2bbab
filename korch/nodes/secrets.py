"""The Secrets that a pod needs to start."""

import base64

from korch.objects.objects import Objects
from korch.resources.misc import Secret
from korch.resources.pod import Pod
from korch.resources.templates import secret_names
from korch.resources.validation import DOCKER_CONFIG_KEY


async def secrets_of(objects: Objects, pod: Pod) -> dict[str, Secret]:
    """The Secrets that the pod uses, by name; missing ones are left for the wish builder to complain about."""
    found = {}
    for name in sorted(secret_names(pod.spec)):
        secret = await objects.find(Secret, name, pod.metadata.namespace)
        if secret is not None:
            found[name] = secret
    return found


def pull_auth(pod: Pod, secrets: dict[str, Secret]) -> bytes | None:
    """The registry credentials of the pod: an engine configuration (`.dockerconfigjson`), or None."""
    for ref in pod.spec.image_pull_secrets:
        secret = secrets.get(ref.name)
        if secret is not None and DOCKER_CONFIG_KEY in secret.data:
            return base64.b64decode(secret.data[DOCKER_CONFIG_KEY])
    return None
