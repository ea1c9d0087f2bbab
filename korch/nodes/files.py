"""Volumes of files: ConfigMaps, Secrets, and what a pod says of itself, as its containers shall see them. Pure.

The files travel on stdin, never in an argument list, and lie in a folder that only korch's user can enter. A change
comes as a whole: files are links through one folder, which is replaced (as the kubelet does it).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from korch.engines.wish import File, FileVolume
from korch.errors import InvalidError
from korch.resources.config import ConfigMap
from korch.resources.defaults import FILE_MODE
from korch.resources.downward import field_text, resource_text
from korch.resources.images import containers_of
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.pod import DownwardAPIVolumeFile, KeyProjection, KeyToPath, Pod, PodSpec, Volume
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


def is_of_files(volume: Volume) -> bool:
    """Whether korch keeps the files of this volume."""
    return any(getattr(volume, name) is not None for name in ("config_map", "secret", "downward_api", "projected"))


def has_files(spec: PodSpec) -> bool:
    """Whether a pod has volumes of files."""
    return any(map(is_of_files, spec.volumes))


def node_fields(name: str, address: str) -> dict[str, str]:
    """What a pod can be told of its node."""
    return {"spec.nodeName": name, "status.hostIP": address}


def versions(pod: Pod, values: Values) -> tuple[tuple[str, str, str], ...]:
    """Changes with anything that the pod's files are made from."""
    notes = (*sorted(pod.metadata.labels.items()), ("", ""), *sorted(pod.metadata.annotations.items()))
    told = any(volume.downward_api is not None or volume.projected is not None for volume in pod.spec.volumes)
    return (*values.versions, *(("", key, text) for key, text in notes if told))


def uses(pod: Pod, obj: Object) -> bool:
    """Whether the pod is made from this Secret or ConfigMap."""
    if obj.metadata.namespace != pod.metadata.namespace:
        return False
    names = secret_names(pod.spec) if isinstance(obj, Secret) else config_map_names(pod.spec)
    return isinstance(obj, Secret | ConfigMap) and obj.metadata.name in names


def file_volumes(pod: Pod, values: Values, node: Mapping[str, str]) -> tuple[FileVolume, ...]:
    """The pod's volumes of files. `InvalidError` for an object or a key that is missing and not optional."""
    return tuple(_volume(pod, volume, values, node) for volume in pod.spec.volumes if is_of_files(volume))


def _volume(pod: Pod, volume: Volume, values: Values, node: Mapping[str, str]) -> FileVolume:
    files: list[File] = []
    if (secret := volume.secret) is not None:
        found = values.secrets.get(secret.secret_name)
        keys = KeyProjection(name=secret.secret_name, items=secret.items, optional=secret.optional)
        files = _keys(pod, "Secret", found, keys, secret.default_mode)
    elif (config := volume.config_map) is not None:
        keys = KeyProjection(name=config.name, items=config.items, optional=config.optional)
        files = _keys(pod, "ConfigMap", values.config_maps.get(config.name), keys, config.default_mode)
    elif volume.downward_api is not None:
        files = _told(pod, volume.downward_api.items, node, volume.downward_api.default_mode)
    elif volume.projected is not None:
        mode = volume.projected.default_mode
        for part in volume.projected.sources:
            if part.secret is not None:
                files += _keys(pod, "Secret", values.secrets.get(part.secret.name), part.secret, mode)
            if part.config_map is not None:
                found_map = values.config_maps.get(part.config_map.name)
                files += _keys(pod, "ConfigMap", found_map, part.config_map, mode)
            if part.downward_api is not None:
                files += _told(pod, part.downward_api.items, node, mode)
    by_path = {one.path: one for one in files}
    for path in by_path:
        parts = path.split("/")
        above = next((head for n in range(1, len(parts)) if (head := "/".join(parts[:n])) in by_path), None)
        if above is not None:
            raise InvalidError(f'pod {pod.metadata.name}: in volume {volume.name}, "{above}" is a file and a folder')
    return FileVolume(volume.name, tuple(by_path.values()))


def _keys(
    pod: Pod, what: str, found: Secret | ConfigMap | None, keys: KeyProjection, default_mode: int | None
) -> list[File]:
    if found is None:
        if keys.optional:
            return []
        raise missing(pod, what, keys.name)
    contents = _contents(found)
    files = []
    for item in keys.items or tuple(KeyToPath(key=key, path=key) for key in sorted(contents)):
        if item.key in contents:
            files.append(File(item.path, _mode(item.mode, default_mode), contents[item.key]))
        elif not keys.optional:
            raise missing_key(pod, found, item.key)
    return files


def _told(
    pod: Pod, items: Sequence[DownwardAPIVolumeFile], node: Mapping[str, str], default_mode: int | None
) -> list[File]:
    containers = {container.name: container for container in containers_of(pod.spec)}
    files = []
    for item in items:
        text, resource = "", item.resource_field_ref
        if item.field_ref is not None:
            text = field_text(pod, item.field_ref.field_path, node)
        elif resource is not None and resource.container_name in containers:
            text = resource_text(resource, containers[resource.container_name])
        files.append(File(item.path, _mode(item.mode, default_mode), text.encode("utf-8", "surrogateescape")))
    return files


def _mode(own: int | None, default: int | None) -> int:
    return own if own is not None else (FILE_MODE if default is None else default)


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
