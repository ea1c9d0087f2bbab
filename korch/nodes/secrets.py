"""The Secrets and ConfigMaps that a pod is made from."""

import base64
from collections.abc import Iterable, Mapping

from korch.nodes.files import Values
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.config import ConfigMap, ServiceAccount
from korch.resources.misc import Secret
from korch.resources.pod import Pod
from korch.resources.templates import config_map_names, secret_names
from korch.resources.validation import DOCKER_CONFIG_KEY


async def values_of(objects: Objects, pod: Pod) -> Values:
    """The Secrets and ConfigMaps that the pod uses; missing ones are left for the wish builder to complain about."""
    namespace = pod.metadata.namespace
    secrets = [await objects.find(Secret, name, namespace) for name in sorted(secret_names(pod.spec))]
    maps = [await objects.find(ConfigMap, name, namespace) for name in sorted(config_map_names(pod.spec))]
    return _values(secrets, maps)


def values_seen(view: View, pod: Pod) -> Values:
    """The same as last seen."""
    namespace = pod.metadata.namespace
    return _values(
        [view.find(Secret, name, namespace) for name in sorted(secret_names(pod.spec))],
        [view.find(ConfigMap, name, namespace) for name in sorted(config_map_names(pod.spec))],
    )


def _values(secrets: Iterable[Secret | None], config_maps: Iterable[ConfigMap | None]) -> Values:
    return Values(
        {found.metadata.name: found for found in secrets if found is not None},
        {found.metadata.name: found for found in config_maps if found is not None},
    )


async def pull_auth(objects: Objects, pod: Pod, secrets: Mapping[str, Secret]) -> bytes | None:
    """The registry credentials of the pod, else of its service account: an engine configuration, or None."""
    namespace, refs = pod.metadata.namespace, pod.spec.image_pull_secrets
    if not refs:
        account = await objects.find(ServiceAccount, pod.spec.service_account_name or "default", namespace)
        refs = account.image_pull_secrets if account is not None else ()
    for ref in refs:
        secret = secrets.get(ref.name) or await objects.find(Secret, ref.name, namespace)
        if secret is not None and DOCKER_CONFIG_KEY in secret.data:
            return base64.b64decode(secret.data[DOCKER_CONFIG_KEY])
    return None
