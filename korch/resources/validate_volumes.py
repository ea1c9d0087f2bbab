"""Whether a pod's volumes and their mounts are legal."""

from collections import Counter
from collections.abc import Sequence

from korch.errors import InvalidError
from korch.resources.downward import field_problem, resource_problem
from korch.resources.images import containers_of, has_sandbox
from korch.resources.names import (
    dns_label_problem,
    dns_subdomain_problem,
    path_problem,
    relative_path_problem,
    secret_key_problem,
    volume_name_problem,
)
from korch.resources.pod import (
    CSIVolumeSource,
    DownwardAPIVolumeFile,
    KeyToPath,
    PodSpec,
    ProjectedVolumeSource,
    Volume,
)
from korch.resources.problems import Problems
from korch.resources.quantity import memory_bytes
from korch.resources.validate_container import check_unique

VOLUME_DRIVER = "volumes.korch.dev"
_HOST_PATH_TYPES = ("", "Directory", "DirectoryOrCreate", "File", "Socket")
_SOURCES = ("config_map", "secret", "downward_api", "projected", "host_path", "empty_dir", "csi")
_MOST_MODE = 0o777
MOST_SHARED = 32  # emptyDir volumes of a pod with several containers


def check_volume(volume: Volume, spec: PodSpec, path: str, problems: Problems) -> None:
    """Note everything that is wrong with one volume of a pod."""
    problems.check(f"{path}.name", dns_label_problem(volume.name))
    if sum(getattr(volume, name) is not None for name in _SOURCES) != 1:
        problems.add(path, "exactly one of configMap, secret, downwardAPI, projected, hostPath, emptyDir, csi")
    if volume.host_path is not None:
        problems.check(f"{path}.hostPath.path", path_problem(volume.host_path.path))
        if volume.host_path.type not in _HOST_PATH_TYPES:
            kinds = ", ".join(_HOST_PATH_TYPES[1:])
            problems.add(f"{path}.hostPath.type", f'"{volume.host_path.type}" is not one of {kinds}')
    if volume.empty_dir is not None:
        if volume.empty_dir.medium not in ("", "Memory"):
            problems.add(f"{path}.emptyDir.medium", f'"{volume.empty_dir.medium}" is not Memory')
        if volume.empty_dir.size_limit is not None:
            _check_size(volume.empty_dir.size_limit, volume.empty_dir.medium, f"{path}.emptyDir.sizeLimit", problems)
    if volume.csi is not None:
        _check_csi(volume.csi, f"{path}.csi", problems)
    if volume.config_map is not None:
        problems.check(f"{path}.configMap.name", dns_subdomain_problem(volume.config_map.name))
        _check_keys(volume.config_map.items, f"{path}.configMap", problems)
        _check_mode(volume.config_map.default_mode, f"{path}.configMap.defaultMode", problems)
    if volume.secret is not None:
        problems.check(f"{path}.secret.secretName", dns_subdomain_problem(volume.secret.secret_name))
        _check_keys(volume.secret.items, f"{path}.secret", problems)
        _check_mode(volume.secret.default_mode, f"{path}.secret.defaultMode", problems)
    if volume.downward_api is not None:
        _check_told(volume.downward_api.items, spec, f"{path}.downwardAPI", problems)
        _check_mode(volume.downward_api.default_mode, f"{path}.downwardAPI.defaultMode", problems)
    if volume.projected is not None:
        _check_projected(volume.projected, spec, f"{path}.projected", problems)


def _check_projected(source: ProjectedVolumeSource, spec: PodSpec, path: str, problems: Problems) -> None:
    _check_mode(source.default_mode, f"{path}.defaultMode", problems)
    for index, part in enumerate(source.sources):
        where = f"{path}.sources[{index}]"
        if sum(one is not None for one in (part.secret, part.config_map, part.downward_api)) != 1:
            problems.add(where, "exactly one of secret, configMap and downwardAPI is needed")
        for name, keys in (("secret", part.secret), ("configMap", part.config_map)):
            if keys is not None:
                problems.check(f"{where}.{name}.name", dns_subdomain_problem(keys.name))
                _check_keys(keys.items, f"{where}.{name}", problems)
        if part.downward_api is not None:
            _check_told(part.downward_api.items, spec, f"{where}.downwardAPI", problems)


def _check_keys(items: Sequence[KeyToPath], path: str, problems: Problems) -> None:
    for index, item in enumerate(items):
        where = f"{path}.items[{index}]"
        problems.check(f"{where}.key", secret_key_problem(item.key))
        problems.check(f"{where}.path", relative_path_problem(item.path))
        _check_mode(item.mode, f"{where}.mode", problems)
    check_unique((f'"{item.path}"' for item in items), f"{path}.items", "path", problems)


def _check_told(items: Sequence[DownwardAPIVolumeFile], spec: PodSpec, path: str, problems: Problems) -> None:
    containers = {container.name: container for container in containers_of(spec)}
    for index, item in enumerate(items):
        where, resource = f"{path}.items[{index}]", item.resource_field_ref
        problems.check(f"{where}.path", relative_path_problem(item.path))
        _check_mode(item.mode, f"{where}.mode", problems)
        if (item.field_ref is None) == (resource is None):
            problems.add(where, "exactly one of fieldRef and resourceFieldRef is needed")
        if item.field_ref is not None:
            problems.check(f"{where}.fieldRef.fieldPath", field_problem(item.field_ref.field_path, of_file=True))
        if resource is not None:
            owner = containers.get(resource.container_name)
            if owner is None:
                problems.add(f"{where}.resourceFieldRef.containerName", f'"{resource.container_name}" is no container')
            else:
                problems.check(f"{where}.resourceFieldRef", resource_problem(resource, owner))
    check_unique((f'"{item.path}"' for item in items), f"{path}.items", "path", problems)


def _check_mode(mode: int | None, path: str, problems: Problems) -> None:
    if mode is not None and not 0 <= mode <= _MOST_MODE:
        problems.add(path, f"{mode} is not between 0 and 511 (0o777)")


def check_whole_mounts(spec: PodSpec, path: str, problems: Problems) -> None:
    """Note mounts that an engine's volumes cannot have: parts of them, and emptyDir at two places."""
    scratch = {volume.name for volume in spec.volumes if volume.empty_dir is not None}
    whole = scratch | {volume.name for volume in spec.volumes if volume.csi is not None}
    for kind, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for index, container in enumerate(containers):
            where = f"{path}.{kind}[{index}].volumeMounts"
            mounted = (f'"{mount.name}"' for mount in container.volume_mounts if mount.name in scratch)
            check_unique(mounted, where, "emptyDir", problems)
            for number, mount in enumerate(container.volume_mounts):
                if mount.sub_path and mount.name in whole:
                    text = "is refused: engines mount their volumes as a whole"
                    problems.add(f"{where}[{number}].subPath", text)


def check_shared(spec: PodSpec, path: str, problems: Problems) -> None:
    """Note emptyDir volumes that the containers of a pod cannot share."""
    if not has_sandbox(spec):
        return
    users = Counter(name for one in containers_of(spec) for name in {mount.name for mount in one.volume_mounts})
    for index, volume in enumerate(spec.volumes):
        if volume.empty_dir is not None and volume.empty_dir.medium == "Memory" and users[volume.name] > 1:
            text = "Memory is for one container: engines cannot share it. Leave medium out where several mount it"
            problems.add(f"{path}.volumes[{index}].emptyDir.medium", text)
    on_disk = sum(volume.empty_dir is not None and volume.empty_dir.medium != "Memory" for volume in spec.volumes)
    if on_disk > MOST_SHARED:
        problems.add(f"{path}.volumes", f"{on_disk} emptyDir volumes; containers can share {MOST_SHARED}")


def _check_size(size: str | int, medium: str, path: str, problems: Problems) -> None:
    try:
        memory_bytes(size)
    except InvalidError as error:
        problems.add(path, str(error))
    if medium != "Memory":
        problems.add(path, "engines limit only volumes in memory; set medium: Memory, or remove it")


def _check_csi(csi: CSIVolumeSource, path: str, problems: Problems) -> None:
    if csi.driver != VOLUME_DRIVER:
        problems.add(f"{path}.driver", f'"{csi.driver}" is not known; use {VOLUME_DRIVER}: a volume of the engine')
        return
    problems.check(f"{path}.volumeAttributes.name", volume_name_problem(csi.volume_attributes.get("name", "")))
    for key in sorted(csi.volume_attributes.keys() - {"name"}):
        problems.add(f"{path}.volumeAttributes.{key}", "is not known; there is only name")
