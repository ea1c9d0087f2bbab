"""Volumes of files: ConfigMaps and Secrets as a pod shall see them. Pure.

The files travel on stdin, never in an argument list, and lie in a folder that only korch's user can enter. A change
comes as a whole: files are links through one folder, which is replaced (as the kubelet does it).
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from korch.engines.wish import File, FileVolume
from korch.errors import InvalidError
from korch.resources.config import ConfigMap
from korch.resources.defaults import FILE_MODE
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.pod import ConfigMapVolumeSource, KeyToPath, Pod, PodSpec, SecretVolumeSource, Volume
from korch.resources.templates import config_map_names, secret_names

CURRENT = "..data"  # in a volume: the link to the files as they are now


@dataclass(frozen=True, slots=True)
class Values:
    """The Secrets and ConfigMaps of a pod's namespace that it uses, by name."""

    secrets: Mapping[str, Secret] = field(default_factory=dict)
    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[tuple[str, str, str], ...]:
        """Changes with any of them."""
        found: tuple[Object, ...] = (*self.secrets.values(), *self.config_maps.values())
        return tuple(sorted((type(one).__name__, one.metadata.name, one.metadata.resource_version) for one in found))


def has_files(spec: PodSpec) -> bool:
    """Whether a pod has volumes of files."""
    return any(volume.config_map is not None or volume.secret is not None for volume in spec.volumes)


def uses(pod: Pod, obj: Object) -> bool:
    """Whether the pod is made from this Secret or ConfigMap."""
    if obj.metadata.namespace != pod.metadata.namespace:
        return False
    names = secret_names(pod.spec) if isinstance(obj, Secret) else config_map_names(pod.spec)
    return isinstance(obj, Secret | ConfigMap) and obj.metadata.name in names


def file_volumes(pod: Pod, values: Values) -> tuple[FileVolume, ...]:
    """The pod's volumes of files. `InvalidError` for an object or a key that is missing and not optional."""
    return tuple(
        _volume(pod, volume, values)
        for volume in pod.spec.volumes
        if volume.config_map is not None or volume.secret is not None
    )


def _volume(pod: Pod, volume: Volume, values: Values) -> FileVolume:
    source: ConfigMapVolumeSource | SecretVolumeSource
    found: Secret | ConfigMap | None
    if volume.secret is not None:
        source, name, what = volume.secret, volume.secret.secret_name, "Secret"
        found = values.secrets.get(name)
    else:
        assert volume.config_map is not None
        source, name, what = volume.config_map, volume.config_map.name, "ConfigMap"
        found = values.config_maps.get(name)
    if found is None:
        if source.optional:
            return FileVolume(volume.name)
        raise missing(pod, what, name)
    contents = _contents(found)
    items = source.items or tuple(KeyToPath(key=key, path=key) for key in sorted(contents))
    files = []
    for item in items:
        if item.key in contents:
            mode = source.default_mode if item.mode is None else item.mode
            files.append(File(item.path, FILE_MODE if mode is None else mode, contents[item.key]))
        elif not source.optional:
            raise missing_key(pod, found, item.key)
    return FileVolume(volume.name, tuple(files))


def _contents(found: Secret | ConfigMap) -> dict[str, bytes]:
    """The keys with their bytes; `validation` has seen to it that it is base64."""
    if isinstance(found, Secret):
        return {key: base64.b64decode(value) for key, value in found.data.items()}
    texts = {key: value.encode("utf-8", "surrogateescape") for key, value in found.data.items()}
    return texts | {key: base64.b64decode(value) for key, value in found.binary_data.items()}


def missing(pod: Pod, what: str, name: str) -> InvalidError:
    """The error for a Secret or ConfigMap that is not there."""
    deploys = "Create it, or deploy again with --env-file or secrets:."
    return InvalidError(
        f'pod {pod.metadata.name}: there is no {what} "{name}" in namespace {pod.metadata.namespace}',
        hint=deploys if what == "Secret" else "Create it: the pod starts as soon as it is there.",
    )


def missing_key(pod: Pod, found: Secret | ConfigMap, key: str) -> InvalidError:
    """The error for a key that it does not have."""
    have = sorted({*found.data, *(found.binary_data if isinstance(found, ConfigMap) else ())})
    what = "Secret" if isinstance(found, Secret) else "ConfigMap"
    return InvalidError(
        f'pod {pod.metadata.name}: {what} "{found.metadata.name}" has no key "{key}"',
        hint=f"It has {', '.join(have) or 'none'}.",
    )
