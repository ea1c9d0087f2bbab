"""From a pod to the container that an engine shall run. Pure: (pod, values, node) → wish."""

import base64
import binascii
import re
from collections.abc import Mapping

from korch.engines import sandbox
from korch.engines.names import SANDBOX, Identity, container_name, volume_name
from korch.engines.wish import ContainerWish, EnvValue, Mount, PublishedPort
from korch.errors import InvalidError
from korch.nodes.files import CURRENT, Values, file_volumes, is_of_files, missing, missing_key, node_fields
from korch.nodes.report import ClusterIdentity
from korch.resources.config import ConfigMap
from korch.resources.downward import field_text, resource_text
from korch.resources.images import has_sandbox, image_reference, made_hash, sidecars_of
from korch.resources.misc import Secret
from korch.resources.pod import Container, EnvFromSource, EnvVar, Pod, PodSpec, SecurityContext, Volume, VolumeMount
from korch.resources.podstate import workload_name
from korch.resources.publish import published_ports
from korch.resources.quantity import cpu_millis, memory_bytes

_ENV_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


def identity_for(pod: Pod, cluster_id: str, container: str | None = None) -> Identity:
    """What the labels of one of the pod's containers say, by default of the first; "" stands for all of them."""
    name = pod.spec.containers[0].name if container is None else container
    return Identity(
        cluster=cluster_id,
        namespace=pod.metadata.namespace,
        pod=pod.metadata.name,
        uid=pod.metadata.uid,
        container=name,
        owner=workload_name(pod),
        spec_hash=made_hash(pod, name),
    )


def container_wish(
    pod: Pod,
    container: Container | None = None,
    *,
    cluster: ClusterIdentity,
    node_address: str,
    node_name: str = "",
    values: Values | None = None,
) -> ContainerWish:
    """The wish for one of the pod's containers (by default the first), made with the values of its namespace.

    Published ports bind to `node_address` unless the port says another `hostIP`. Raises `InvalidError` for a Secret,
    ConfigMap or key that does not exist, and for ports without a node address.
    """
    values, spec = values or Values(), pod.spec
    container, joins = container or spec.containers[0], has_sandbox(spec)
    security = _Security(spec.security_context, container.security_context)
    requests, limits = container.resources.requests, container.resources.limits
    node = node_fields(node_name, node_address)
    env = _environment(pod, container, values, node)
    grace_s = spec.termination_grace_period_seconds
    return ContainerWish(
        identity=identity_for(pod, cluster.id, container.name),
        cluster_name=cluster.name,
        image=image_reference(pod, container),
        entrypoint=_words(pod, container.command, env),
        args=_words(pod, container.args, env),
        env=env,
        ports=() if joins else _ports(pod, node_address),
        mounts=_mounts(pod, container, cluster),
        files=file_volumes(pod, values, node),
        cpu_limit_millis=cpu_millis(limits["cpu"]) if "cpu" in limits else 0,
        cpu_request_millis=cpu_millis(requests["cpu"]) if "cpu" in requests else 0,
        memory_limit_bytes=memory_bytes(limits["memory"]) if "memory" in limits else 0,
        working_dir=container.working_dir,
        user=security.user,
        read_only=security.flag("read_only_root_filesystem"),
        privileged=security.flag("privileged"),
        no_new_privileges=security.escalation_forbidden,
        cap_add=security.capabilities("add"),
        cap_drop=security.capabilities("drop"),
        hostname=_hostname(pod),
        restart="unless-stopped" if restarted_by_engine(spec) else "no",
        stop_grace_s=30 if grace_s is None else grace_s,
        tty=bool(container.tty),
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        sandbox=_sandbox_name(pod, cluster) if joins else "",
    )


def sandbox_wish(pod: Pod, *, cluster: ClusterIdentity, node_address: str) -> ContainerWish:
    """The wish for the container that holds the pod's network, its published ports and the volumes that are shared.

    It may do nothing, and hears no signal: the engine ends it at once.
    """
    folders = (sandbox.volume_folder(number) for number in range(len(_shared(pod))))
    return ContainerWish(
        identity=identity_for(pod, cluster.id, SANDBOX),
        cluster_name=cluster.name,
        image=sandbox.image_name(),
        ports=_ports(pod, node_address),
        mounts=tuple(Mount("scratch", folder) for folder in folders),
        user="65534:65534",
        read_only=True,
        no_new_privileges=True,
        cap_drop=("ALL",),
        hostname=_hostname(pod),
        stop_grace_s=0,
        stop_signal="SIGKILL",
    )


def restarted_by_engine(spec: PodSpec) -> bool:
    """Whether the engine starts the pod's container again, at once and without anybody's help; else the keeper does.

    The engine knows no order, no end that is final, and no hook after the start.
    """
    hooked = any(found.lifecycle is not None and found.lifecycle.post_start is not None for found in spec.containers)
    return spec.restart_policy in {"", "Always"} and not has_sandbox(spec) and not hooked


def _hostname(pod: Pod) -> str:
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def _sandbox_name(pod: Pod, cluster: ClusterIdentity) -> str:
    meta = pod.metadata
    return container_name(cluster.name, meta.namespace, meta.name, SANDBOX, meta.uid)


def _shared(pod: Pod) -> list[str]:
    """The names of the scratch volumes that the pod's sandbox has, in its order."""
    if not has_sandbox(pod.spec):
        return []
    return [one.name for one in pod.spec.volumes if one.empty_dir is not None and one.empty_dir.medium != "Memory"]


# Environment


def _environment(pod: Pod, container: Container, known: Values, node: Mapping[str, str]) -> tuple[EnvValue, ...]:
    """`envFrom` first, `env` after it: the last of a name wins. `$(NAME)` reads earlier values, as in Kubernetes."""
    values: dict[str, EnvValue] = {}
    for source in container.env_from:
        found = _whole(pod, source, known)
        for key in sorted(found.data if found else ()):
            name = source.prefix + key
            if found is not None and _ENV_NAME.fullmatch(name):
                values[name] = _entry(name, found, key)
    for entry in container.env:
        value = _value(pod, container, entry, values, known, node)
        if value is not None:
            values[entry.name] = value
    return tuple(values.values())


def _whole(pod: Pod, source: EnvFromSource, known: Values) -> Secret | ConfigMap | None:
    if source.secret_ref is not None:
        return _found(pod, known, "Secret", source.secret_ref.name, optional=bool(source.secret_ref.optional))
    if source.config_map_ref is not None:
        ref = source.config_map_ref
        return _found(pod, known, "ConfigMap", ref.name, optional=bool(ref.optional))
    return None


def _value(
    pod: Pod,
    container: Container,
    entry: EnvVar,
    earlier: Mapping[str, EnvValue],
    known: Values,
    node: Mapping[str, str],
) -> EnvValue | None:
    """One variable; None for an optional key that does not exist."""
    source = entry.value_from
    if source is None:
        text, secret = _expand(entry.value, earlier)
        return EnvValue(entry.name, text, secret=secret)
    if source.field_ref is not None:
        return EnvValue(entry.name, field_text(pod, source.field_ref.field_path, node))
    if source.resource_field_ref is not None:
        return EnvValue(entry.name, resource_text(source.resource_field_ref, container))
    reference = source.secret_key_ref or source.config_map_key_ref
    if reference is None:
        return EnvValue(entry.name, "")
    what = "Secret" if source.secret_key_ref is not None else "ConfigMap"
    found = _found(pod, known, what, reference.name, optional=bool(reference.optional))
    if found is None or (reference.key not in found.data and reference.optional):
        return None
    if reference.key not in found.data:
        raise missing_key(pod, found, reference.key)
    return _entry(entry.name, found, reference.key)


def _entry(name: str, found: Secret | ConfigMap, key: str) -> EnvValue:
    if isinstance(found, Secret):
        return EnvValue(name, _decoded(found, key), secret=True)
    return EnvValue(name, found.data[key])


def _expand(text: str, earlier: Mapping[str, EnvValue]) -> tuple[str, bool]:
    """The text with `$(NAME)` of earlier variables filled in and `$$` as `$`; whether a secret went into it."""
    secret = False

    def fill(match: re.Match[str]) -> str:
        nonlocal secret
        if match[0] == "$$":
            return "$"
        known = earlier.get(match[1])
        secret = secret or (known is not None and known.secret)
        return match[0] if known is None else known.value

    return re.sub(r"\$\$|\$\(([-._a-zA-Z0-9]+)\)", fill, text), secret


def _words(pod: Pod, words: tuple[str, ...], env: tuple[EnvValue, ...]) -> tuple[str, ...]:
    """Words of a command with `$(NAME)` filled in. A secret never becomes part of a command line."""
    values = {entry.name: entry for entry in env}
    expanded = [_expand(word, values) for word in words]
    for word, (_, secret) in zip(words, expanded, strict=True):
        if secret:
            raise InvalidError(
                f'pod {pod.metadata.name}: "{word}" in the command would show a secret to every user of the node',
                hint='Let the program read the variable itself: command [sh, -c], args ["exec prog $NAME"].',
            )
    return tuple(text for text, _ in expanded)


def _found(pod: Pod, known: Values, what: str, name: str, *, optional: bool) -> Secret | ConfigMap | None:
    found = known.secrets.get(name) if what == "Secret" else known.config_maps.get(name)
    if found is None and not optional:
        raise missing(pod, what, name)
    return found


def _decoded(secret: Secret, key: str) -> str:
    try:
        return base64.b64decode(secret.data[key], validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise InvalidError(f'Secret "{secret.metadata.name}": the value of "{key}" is not base64') from None


# Ports


def _ports(pod: Pod, node_address: str) -> tuple[PublishedPort, ...]:
    """Fixed node ports (`hostPort`), then the ports that the annotation publishes on a free one."""
    fixed = [
        PublishedPort(p.container_port, p.host_port, (p.protocol or "TCP").lower(), p.host_ip or node_address)
        for container in (*sidecars_of(pod.spec), *pod.spec.containers)
        for p in container.ports
        if p.host_port
    ]
    taken = {(p.container_port, p.protocol) for p in fixed}
    free = [
        PublishedPort(number, 0, protocol.lower(), node_address)
        for number, protocol in published_ports(pod.metadata.annotations)
        if (number, protocol.lower()) not in taken
    ]
    if any(not port.host_ip for port in (*fixed, *free)):
        raise InvalidError(
            f"pod {pod.metadata.name}: the address that its node's ports bind to is not known",
            hint="Set korch_address for the host in the inventory.",
        )
    return (*fixed, *free)


# Volumes


def _mounts(pod: Pod, container: Container, cluster: ClusterIdentity) -> tuple[Mount, ...]:
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    shared = _shared(pod)
    scratch = [
        m.name
        for m in container.volume_mounts
        if m.name in volumes and volumes[m.name].empty_dir and m.name not in shared
    ]
    twice = next((name for name in scratch if scratch.count(name) > 1), "")
    if twice:
        raise InvalidError(
            f'pod {pod.metadata.name}: emptyDir "{twice}" is mounted at two places of a container',
            hint="Mount it once, or use a named volume.",
        )
    return tuple(_mount(pod, mount, volumes.get(mount.name), cluster) for mount in container.volume_mounts)


def _mount(pod: Pod, mount: VolumeMount, volume: Volume | None, cluster: ClusterIdentity) -> Mount:
    read_only = bool(mount.read_only)
    inside = f"/{mount.sub_path}" if mount.sub_path else ""
    if volume is not None and is_of_files(volume):
        return Mount("files", mount.mount_path, volume.name + (f"/{CURRENT}{inside}" if inside else ""), True)
    if volume is not None and volume.host_path is not None:
        make = volume.host_path.type == "DirectoryOrCreate"
        path = f"{volume.host_path.path.rstrip('/')}{inside}" or "/"
        return Mount("bind", mount.mount_path, path, read_only, make=make)
    if volume is not None and volume.name in (shared := _shared(pod)):
        return Mount("shared", mount.mount_path, sandbox.volume_folder(shared.index(volume.name)), read_only)
    if volume is not None and volume.empty_dir is not None:
        size = volume.empty_dir.size_limit
        size_bytes = memory_bytes(size) if size is not None else 0
        memory = volume.empty_dir.medium == "Memory"
        return Mount("tmpfs" if memory else "scratch", mount.mount_path, "", read_only, size_bytes)
    if volume is not None and volume.csi is not None:
        name = volume_name(cluster.id, pod.metadata.namespace, volume.csi.volume_attributes.get("name", volume.name))
        return Mount("volume", mount.mount_path, name, read_only or bool(volume.csi.read_only))
    raise InvalidError(f'pod {pod.metadata.name}: there is no volume "{mount.name}"')


# Rights


class _Security:
    """The container's settings over the pod's."""

    def __init__(self, pod: SecurityContext | None, container: SecurityContext | None) -> None:
        self._pod, self._container = pod, container

    def flag(self, name: str) -> bool:
        """A yes-or-no setting of the container."""
        return bool(self._container is not None and getattr(self._container, name))

    @property
    def escalation_forbidden(self) -> bool:
        """`allowPrivilegeEscalation: false`."""
        return self._container is not None and self._container.allow_privilege_escalation is False

    @property
    def user(self) -> str:
        """`UID` or `UID:GID`, or "" for the image's."""
        user, group = self._number("run_as_user"), self._number("run_as_group")
        if user is None:
            return ""
        return str(user) if group is None else f"{user}:{group}"

    def _number(self, name: str) -> int | None:
        for context in (self._container, self._pod):
            value: int | None = getattr(context, name) if context is not None else None
            if value is not None:
                return value
        return None

    def capabilities(self, change: str) -> tuple[str, ...]:
        """Names to add or to drop."""
        if self._container is None or self._container.capabilities is None:
            return ()
        names: tuple[str, ...] = getattr(self._container.capabilities, change)
        return names
