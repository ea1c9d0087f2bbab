"""Whether a container is legal: image, environment, ports, resources, checks, mounts."""

import ipaddress
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

from korch.errors import InvalidError
from korch.resources.downward import field_problem, resource_problem
from korch.resources.names import (
    dns_label_problem,
    dns_subdomain_problem,
    env_name_problem,
    image_problem,
    path_problem,
    port_name_problem,
    relative_path_problem,
    secret_key_problem,
    text_problem,
)
from korch.resources.pod import (
    Container,
    ContainerPort,
    EnvVar,
    EnvVarSource,
    ExecAction,
    HTTPGetAction,
    LifecycleHandler,
    Probe,
    ResourceRequirements,
)
from korch.resources.problems import Problems
from korch.resources.quantity import cpu_millis, memory_bytes

_SMALLEST_MEMORY = 6 * 1024 * 1024  # Docker refuses less ("Minimum memory limit allowed is 6MB")
_SMALLEST_CPU_MILLIS = 10  # Docker's --cpus 0.01
_LONGEST_START_S = 120  # of a postStart hook: the pod's other containers wait for it
_POLICIES = ("Always", "IfNotPresent", "Never")


def check_container(container: Container, path: str, volumes: Iterable[str], problems: Problems) -> None:
    """Note everything that is wrong with one container; `volumes` are the names that its mounts may use."""
    problems.check(f"{path}.name", dns_label_problem(container.name))
    problems.check(f"{path}.image", image_problem(container.image))
    if container.image_pull_policy not in _POLICIES:
        problems.add(f"{path}.imagePullPolicy", f'"{container.image_pull_policy}" is not one of {", ".join(_POLICIES)}')
    if container.working_dir:
        problems.check(f"{path}.workingDir", path_problem(container.working_dir))
    for field, words in (("command", container.command), ("args", container.args)):
        for index, word in enumerate(words):
            problems.check(f"{path}.{field}[{index}]", text_problem(word))
    _check_environment(container, path, problems)
    _check_ports(container.ports, f"{path}.ports", problems)
    _check_resources(container.resources, f"{path}.resources", problems)
    _check_mounts(container, f"{path}.volumeMounts", frozenset(volumes), problems)
    _check_capabilities(container, f"{path}.securityContext", problems)
    _check_probes(container, path, problems)


def check_unique(values: Iterable[Hashable], path: str, what: str, problems: Problems) -> None:
    """Note values that occur twice."""
    for value, count in Counter(values).items():
        if count > 1:
            problems.add(path, f"{what} {value} is given {count} times")


def check_user(user: int | None, path: str, problems: Problems) -> None:
    """Note a user or group id that Linux does not have."""
    if user is not None and not 0 <= user < 2**32 - 1:
        problems.add(path, f"{user} is not a user or group id")


# --- environment ---


def _check_environment(container: Container, path: str, problems: Problems) -> None:
    check_unique((f'"{env.name}"' for env in container.env), f"{path}.env", "variable", problems)
    for index, env in enumerate(container.env):
        _check_variable(env, container, f"{path}.env[{index}]", problems)
    for index, source in enumerate(container.env_from):
        where = f"{path}.envFrom[{index}]"
        if source.prefix:
            problems.check(f"{where}.prefix", env_name_problem(source.prefix))
        if (source.secret_ref is None) == (source.config_map_ref is None):
            problems.add(where, "exactly one of secretRef and configMapRef is needed")
        for name, reference in (("secretRef", source.secret_ref), ("configMapRef", source.config_map_ref)):
            if reference is not None:
                problems.check(f"{where}.{name}.name", dns_subdomain_problem(reference.name))


def _check_variable(env: EnvVar, container: Container, path: str, problems: Problems) -> None:
    problems.check(f"{path}.name", env_name_problem(env.name))
    problems.check(f"{path}.value", text_problem(env.value))
    if env.value_from is not None:
        if env.value:
            problems.add(path, "value and valueFrom exclude each other")
        _check_source(env.value_from, container, f"{path}.valueFrom", problems)


def _check_source(source: EnvVarSource, container: Container, path: str, problems: Problems) -> None:
    keys = (("secretKeyRef", source.secret_key_ref), ("configMapKeyRef", source.config_map_key_ref))
    given = (source.field_ref, source.resource_field_ref, *(key for _, key in keys))
    if sum(one is not None for one in given) != 1:
        problems.add(path, "exactly one of secretKeyRef, configMapKeyRef, fieldRef and resourceFieldRef is needed")
    for name, key in keys:
        if key is not None:
            problems.check(f"{path}.{name}.name", dns_subdomain_problem(key.name))
            problems.check(f"{path}.{name}.key", secret_key_problem(key.key))
    if source.field_ref is not None:
        problems.check(f"{path}.fieldRef.fieldPath", field_problem(source.field_ref.field_path))
    if source.resource_field_ref is not None:
        if source.resource_field_ref.container_name not in ("", container.name):
            problems.add(f"{path}.resourceFieldRef.containerName", "only the container's own figures are known to it")
        problems.check(f"{path}.resourceFieldRef", resource_problem(source.resource_field_ref, container))


# --- ports ---


def port_problem(number: int) -> str:
    """Why this is no port, or ""."""
    return "" if 1 <= number <= 65535 else f"{number} is not a port (1-65535)"


def _check_ports(ports: tuple[ContainerPort, ...], path: str, problems: Problems) -> None:
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        problems.check(f"{where}.containerPort", port_problem(port.container_port))
        if port.host_port:
            problems.check(f"{where}.hostPort", port_problem(port.host_port))
        if port.name:
            problems.check(f"{where}.name", port_name_problem(port.name))
        if port.protocol not in ("TCP", "UDP"):
            problems.add(f"{where}.protocol", f'"{port.protocol}" is not TCP or UDP')
        if port.host_ip:
            problems.check(f"{where}.hostIP", _address_problem(port.host_ip))
    check_unique((f'"{p.name}"' for p in ports if p.name), path, "port name", problems)
    check_unique(
        (f"{p.container_port}/{p.protocol} on {p.host_port or 'no node port'}" for p in ports), path, "port", problems
    )
    taken = (f"{p.host_port}/{p.protocol}" + (f" on {p.host_ip}" if p.host_ip else "") for p in ports if p.host_port)
    check_unique(taken, path, "node port", problems)


def _address_problem(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return f'"{address}" is not an IP address'
    return ""


# --- resources ---


def _check_resources(resources: ResourceRequirements, path: str, problems: Problems) -> None:
    limits = _amounts(resources.limits, f"{path}.limits", problems)
    requests = _amounts(resources.requests, f"{path}.requests", problems)
    for name, amount in requests.items():
        if name in limits and amount > limits[name]:
            message = f"{resources.requests[name]} is more than the limit {resources.limits[name]}"
            problems.add(f"{path}.requests.{name}", message)
    if 0 < limits.get("memory", 0) < _SMALLEST_MEMORY:
        problems.add(f"{path}.limits.memory", f"{resources.limits['memory']} is less than engines accept (6Mi)")
    if 0 < limits.get("cpu", 0) < _SMALLEST_CPU_MILLIS:
        problems.add(f"{path}.limits.cpu", f"{resources.limits['cpu']} is less than engines accept (10m)")


def _amounts(quantities: Mapping[str, str | int | float], path: str, problems: Problems) -> dict[str, int]:
    read = {"cpu": cpu_millis, "memory": memory_bytes}
    found = {}
    for name, value in quantities.items():
        if name not in read:
            problems.add(f"{path}.{name}", "is refused: korch schedules and limits cpu and memory")
            continue
        try:
            found[name] = read[name](value)
        except InvalidError as error:
            problems.add(f"{path}.{name}", f"{error}")
    return found


# --- mounts, rights ---


def _check_mounts(container: Container, path: str, volumes: frozenset[str], problems: Problems) -> None:
    for index, mount in enumerate(container.volume_mounts):
        where = f"{path}[{index}]"
        if mount.name not in volumes:
            problems.add(f"{where}.name", f'there is no volume "{mount.name}"')
        problems.check(f"{where}.mountPath", path_problem(mount.mount_path))
        if ":" in mount.mount_path:
            problems.add(f"{where}.mountPath", f'"{mount.mount_path}" has a ":"')
        if mount.sub_path:
            problems.check(f"{where}.subPath", relative_path_problem(mount.sub_path))
    check_unique((m.mount_path.rstrip("/") or "/" for m in container.volume_mounts), path, "mountPath", problems)


def _check_capabilities(container: Container, path: str, problems: Problems) -> None:
    context = container.security_context
    if context is None:
        return
    check_user(context.run_as_user, f"{path}.runAsUser", problems)
    check_user(context.run_as_group, f"{path}.runAsGroup", problems)
    capabilities = context.capabilities
    for name in (*capabilities.add, *capabilities.drop) if capabilities else ():
        if not re.fullmatch(r"[A-Z][A-Z_]*", name, re.ASCII):
            problems.add(f"{path}.capabilities", f'"{name}" is not a capability, such as NET_ADMIN or ALL')


# --- probes ---


def _check_probes(container: Container, path: str, problems: Problems) -> None:
    for name, probe in (
        ("readinessProbe", container.readiness_probe),
        ("livenessProbe", container.liveness_probe),
        ("startupProbe", container.startup_probe),
    ):
        if probe is None:
            continue
        where = f"{path}.{name}"
        _check_probe(probe, where, container.ports, problems)
        if name != "readinessProbe" and probe.success_threshold != 1:
            problems.add(f"{where}.successThreshold", "must be 1 here")
        if name == "readinessProbe" and probe.termination_grace_period_seconds is not None:
            problems.add(f"{where}.terminationGracePeriodSeconds", "a readiness probe ends nothing")


def _check_probe(probe: Probe, path: str, ports: tuple[ContainerPort, ...], problems: Problems) -> None:
    if sum(action is not None for action in (probe.http_get, probe.tcp_socket, probe.exec)) != 1:
        problems.add(path, "exactly one of httpGet, tcpSocket and exec is needed")
    if probe.exec is not None:
        _check_command(probe.exec, f"{path}.exec", problems)
    if probe.tcp_socket is not None:
        problems.check(f"{path}.tcpSocket.port", _probe_port_problem(probe.tcp_socket.port, ports))
        problems.check(f"{path}.tcpSocket.host", _host_problem(probe.tcp_socket.host))
    if probe.http_get is not None:
        _check_get(probe.http_get, f"{path}.httpGet", ports, problems)
    for name, value, least in (
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("periodSeconds", probe.period_seconds, 1),
        ("timeoutSeconds", probe.timeout_seconds, 1),
        ("successThreshold", probe.success_threshold, 1),
        ("failureThreshold", probe.failure_threshold, 1),
        ("terminationGracePeriodSeconds", probe.termination_grace_period_seconds, 1),
    ):
        if value is not None and value < least:
            problems.add(f"{path}.{name}", f"{value} is less than {least}")


def _check_command(action: ExecAction, path: str, problems: Problems) -> None:
    if not action.command:
        problems.add(f"{path}.command", "a command is needed")
    for index, word in enumerate(action.command):
        problems.check(f"{path}.command[{index}]", text_problem(word))


def _check_get(get: HTTPGetAction, path: str, ports: tuple[ContainerPort, ...], problems: Problems) -> None:
    problems.check(f"{path}.port", _probe_port_problem(get.port, ports))
    problems.check(f"{path}.host", _host_problem(get.host))
    if not get.path.startswith("/") or not re.fullmatch(r"[!-~]+", get.path, re.ASCII):
        problems.add(f"{path}.path", f'"{get.path}" is not a path such as /healthz')
    if get.scheme not in ("HTTP", "HTTPS"):
        problems.add(f"{path}.scheme", f'"{get.scheme}" is not HTTP or HTTPS')
    for header in get.http_headers:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", header.name, re.ASCII) or re.search(
            r"[\0\r\n]", header.value
        ):
            problems.add(f"{path}.httpHeaders", f'"{header.name}" is not a header')


def _host_problem(host: str) -> str:
    if not host or re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", host, re.ASCII) or ":" in host:
        return _address_problem(host) if ":" in host else ""
    return f'"{host}" is not a host name or address'


def check_hooks(container: Container, path: str, grace_s: int, problems: Problems) -> None:
    """Note what is wrong with a container's `lifecycle`, in a pod that has so long to end."""
    lifecycle = container.lifecycle
    if lifecycle is not None and lifecycle.post_start is not None:
        _check_hook(lifecycle.post_start, container, f"{path}.lifecycle.postStart", _LONGEST_START_S, problems)
    if lifecycle is not None and lifecycle.pre_stop is not None:
        _check_hook(lifecycle.pre_stop, container, f"{path}.lifecycle.preStop", grace_s, problems)


def check_init(container: Container, path: str, problems: Problems) -> None:
    """Note what an init container cannot have: it runs to its end, before there is anything to ask or to reach.

    One with restartPolicy Always, a sidecar, goes on, and may have it all.
    """
    if container.restart_policy == "Always":
        return
    if container.restart_policy:
        problems.add(f"{path}.restartPolicy", f'"{container.restart_policy}" is not Always, the only one that is known')
    given = {
        "lifecycle": container.lifecycle,
        "readinessProbe": container.readiness_probe,
        "livenessProbe": container.liveness_probe,
        "startupProbe": container.startup_probe,
    }
    for name, value in given.items():
        if value is not None:
            problems.add(f"{path}.{name}", "is not for init containers that end: restartPolicy Always makes one go on")
    if any(port.host_port for port in container.ports):
        problems.add(f"{path}.ports", "hostPort is not for init containers: nothing is to reach them")


def _check_hook(hook: LifecycleHandler, container: Container, path: str, longest_s: int, problems: Problems) -> None:
    if sum(action is not None for action in (hook.exec, hook.http_get, hook.sleep)) != 1:
        problems.add(path, "exactly one of exec, httpGet and sleep is needed")
    if hook.exec is not None:
        _check_command(hook.exec, f"{path}.exec", problems)
    if hook.http_get is not None:
        _check_get(hook.http_get, f"{path}.httpGet", container.ports, problems)
    if hook.sleep is not None and not 0 <= hook.sleep.seconds <= longest_s:
        limit = "terminationGracePeriodSeconds" if path.endswith("preStop") else "the longest time"
        problems.add(f"{path}.sleep.seconds", f"{hook.sleep.seconds} is not between 0 and {limit} ({longest_s})")


def _probe_port_problem(port: int | str, ports: tuple[ContainerPort, ...]) -> str:
    if isinstance(port, int):
        return port_problem(port)
    if port in {p.name for p in ports if p.name}:
        return ""
    return f'no port of the container is called "{port}"' + ("; write it without quotes" if port.isdigit() else "")
