"""The short form as Kubernetes objects: an `App` becomes a Deployment and, when it has secrets, a Secret.

The environment's secrets are kept in a Secret that never changes, `NAME-env-TOKEN`: a changed value makes another one,
so that the pods roll, and the old revision still finds the values that it ran with when a rollout goes back.
"""

import base64
import re
from collections.abc import Iterable, Mapping

import msgspec

from korch.errors import InvalidError
from korch.resources.annotations import AUTO_ROLLBACK
from korch.resources.app import App, Health, Mount, Port
from korch.resources.defaults import DEFAULT_NAMESPACE, with_defaults
from korch.resources.kinds import DEPLOYMENT, SECRET
from korch.resources.meta import LabelSelector, Object, ObjectMeta
from korch.resources.misc import Secret
from korch.resources.names import dns_label_problem, env_name_problem
from korch.resources.pod import (
    Affinity,
    Container,
    ContainerPort,
    CSIVolumeSource,
    EmptyDirVolumeSource,
    EnvVar,
    EnvVarSource,
    ExecAction,
    HostPathVolumeSource,
    HTTPGetAction,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PodSpec,
    Probe,
    ResourceRequirements,
    SecretKeySelector,
    SecurityContext,
    TCPSocketAction,
    TopologySpreadConstraint,
    Volume,
    VolumeMount,
)
from korch.resources.problems import raise_problems
from korch.resources.publish import PUBLISH_ANNOTATION, publish_text
from korch.resources.templates import secret_names
from korch.resources.validate_volumes import VOLUME_DRIVER
from korch.resources.validation import problems_of
from korch.resources.workload import (
    DaemonSet,
    Deployment,
    DeploymentSpec,
    DeploymentStrategy,
    PodTemplateSpec,
    ReplicaSet,
    RollingUpdateDeployment,
)

APP_LABEL = "app"
MANAGED_BY = {"app.kubernetes.io/managed-by": "korch"}
SECRETS_OF_LABEL = "korch.dev/secrets-of"
REGISTRY_OF_LABEL = "korch.dev/registry-of"  # on a Secret: the workload that it pulls images for
REGISTRY_ANNOTATION = "korch.dev/registry"  # there: the registry's `host[:port]`
_LABELS = {
    "zone": "topology.kubernetes.io/zone",
    "region": "topology.kubernetes.io/region",
    "node": "kubernetes.io/hostname",
    "host": "kubernetes.io/hostname",
    "arch": "kubernetes.io/arch",
    "os": "kubernetes.io/os",
}
_PULL = {"": "", "always": "Always", "missing": "IfNotPresent", "never": "Never"}


class Expansion(msgspec.Struct, frozen=True):
    """The objects of an app. `secret` is one that exists already when its values are the same."""

    deployment: Deployment
    secret: Secret | None = None

    @property
    def objects(self) -> tuple[Object, ...]:
        """In the order in which they are to be applied."""
        return (self.deployment,) if self.secret is None else (self.secret, self.deployment)


def expand(
    app: App, *, values: Mapping[str, str] | None = None, known: Iterable[Secret] = (), token: str = "", where: str = ""
) -> Expansion:
    """The objects of an app; `InvalidError` (beginning with `where`, a FILE:LINE) tells everything that is wrong.

    `values` are those of the caller's environment and env-files, of which only `app.secrets` are looked at; what is
    missing there is taken from the newest of `known`, the app's Secrets so far. `token` is random and names a new one.
    """
    _check(app, where)
    secret = _secret(app, values or {}, known, token, where) if app.secrets else None
    deployment = _deployment(app, secret.metadata.name if secret else "")
    subject = f'{where}: app "{app.name}"' if where else f'app "{app.name}"'
    raise_problems(subject, problems_of(with_defaults(deployment)))
    return Expansion(deployment, secret)


def unused_secrets(
    secrets: Iterable[Secret], workloads: Iterable[Deployment | ReplicaSet | DaemonSet]
) -> tuple[Secret, ...]:
    """The Secrets that deploys made and no template names: not now, and not in what a rollout can go back to."""
    used = {
        (workload.metadata.namespace, name)
        for workload in workloads
        for name in secret_names(workload.spec.template.spec)
    }
    ours = (secret for secret in secrets if {SECRETS_OF_LABEL, REGISTRY_OF_LABEL} & secret.metadata.labels.keys())
    return tuple(secret for secret in ours if (secret.metadata.namespace, secret.metadata.name) not in used)


def workload_of_secret(secret: Secret) -> str:
    """The workload that a deploy made the Secret for, "" when it was made otherwise."""
    labels = secret.metadata.labels
    return labels.get(SECRETS_OF_LABEL) or labels.get(REGISTRY_OF_LABEL) or ""


def _check(app: App, where: str) -> None:
    """What the objects could not tell in the short form's words."""
    problems = [dns_label_problem(app.name), *(env_name_problem(name) for name in app.secrets)]
    both = sorted(set(app.env) & set(app.secrets))
    problems += [f'"{name}" is in env and in secrets' for name in both]
    problems += [f'the label "{APP_LABEL}" is the app\'s name; choose another' for _ in [0] if APP_LABEL in app.labels]
    if app.health is not None and app.health.http is not None and app.health.port is None and not app.ports:
        problems.append("health.http needs a port: give ports, or health.port")
    found = [problem for problem in problems if problem]
    if found:
        raise InvalidError(": ".join(filter(None, (where, f'app "{app.name}"', "; ".join(found)))))


# --- secrets ---


def _secret(app: App, values: Mapping[str, str], known: Iterable[Secret], token: str, where: str) -> Secret:
    namespace = app.namespace or DEFAULT_NAMESPACE
    mine = [
        secret
        for secret in known
        if secret.metadata.labels.get(SECRETS_OF_LABEL) == app.name and secret.metadata.namespace == namespace
    ]
    mine.sort(key=lambda secret: (secret.metadata.creation_timestamp or "", secret.metadata.name))
    data = {
        name: base64.b64encode(values[name].encode(errors="surrogateescape")).decode()
        for name in app.secrets
        if name in values
    }
    missing = [name for name in app.secrets if name not in data]
    kept = mine[-1].data if mine else {}
    unknown = [name for name in missing if name not in kept]
    if unknown:
        message = f'app "{app.name}": no value for secret {", ".join(unknown)}'
        raise InvalidError(
            f"{where}: {message}" if where else message,
            hint=f"`export {unknown[0]}=...`, or give a file with --env-file.",
        )
    data |= {name: kept[name] for name in missing}
    for secret in reversed(mine):
        if secret.data == data:
            return secret
    if not token:
        raise ValueError("a new Secret needs a token")
    meta = ObjectMeta(
        name=f"{app.name}-env-{token}",
        namespace=app.namespace,
        labels={APP_LABEL: app.name, SECRETS_OF_LABEL: app.name, **MANAGED_BY},
    )
    return Secret(
        api_version=SECRET.api_version, kind=SECRET.name, metadata=meta, type="Opaque", data=data, immutable=True
    )


# --- deployment ---


def _deployment(app: App, secret: str) -> Deployment:
    selector = LabelSelector(match_labels={APP_LABEL: app.name})
    free = [(port.container, port.protocol) for port in app.ports if not port.node]
    template = ObjectMeta(
        labels={APP_LABEL: app.name, **app.labels},
        annotations={PUBLISH_ANNOTATION: publish_text(free)} if free else {},
    )
    rolling = RollingUpdateDeployment(max_surge=1, max_unavailable=0)
    return Deployment(
        api_version=DEPLOYMENT.api_version,
        kind=DEPLOYMENT.name,
        metadata=ObjectMeta(
            name=app.name,
            namespace=app.namespace,
            labels={APP_LABEL: app.name, **MANAGED_BY, **app.labels},
            annotations={AUTO_ROLLBACK: "true", **app.annotations},
        ),
        spec=DeploymentSpec(
            replicas=1 if app.replicas is None else app.replicas,
            selector=selector,
            strategy=DeploymentStrategy(type="RollingUpdate", rolling_update=rolling)
            if app.update == "rolling"
            else DeploymentStrategy(type="Recreate"),
            template=PodTemplateSpec(metadata=template, spec=_pod_spec(app, secret, selector)),
        ),
    )


def _pod_spec(app: App, secret: str, selector: LabelSelector) -> PodSpec:
    wanted = {_label(key): values for key, values in app.constraints.items()}
    choices = {key: values for key, values in wanted.items() if len(values) != 1}
    return PodSpec(
        containers=(_container(app, secret),),
        volumes=tuple(_volume(mount, index) for index, mount in _sources(app.mounts)),
        node_selector={key: values[0] for key, values in wanted.items() if len(values) == 1},
        affinity=_one_of(choices) if choices else None,
        topology_spread_constraints=tuple(
            TopologySpreadConstraint(
                max_skew=1, topology_key=_label(key), when_unsatisfiable="ScheduleAnyway", label_selector=selector
            )
            for key in app.spread
        ),
        termination_grace_period_seconds=app.stop_grace_s,
    )


def _label(key: str) -> str:
    return _LABELS.get(key, key)


def _one_of(choices: Mapping[str, tuple[str, ...]]) -> Affinity:
    needed = tuple(
        NodeSelectorRequirement(key=key, operator="In", values=values) for key, values in sorted(choices.items())
    )
    selector = NodeSelector(node_selector_terms=(NodeSelectorTerm(match_expressions=needed),))
    return Affinity(node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=selector))


def _container(app: App, secret: str) -> Container:
    plain = tuple(EnvVar(name=name, value=_literal(value)) for name, value in sorted(app.env.items()))
    hidden = tuple(
        EnvVar(name=name, value_from=EnvVarSource(secret_key_ref=SecretKeySelector(name=secret, key=name)))
        for name in sorted(set(app.secrets))
    )
    numbers = {mount.source or mount.target: index for index, mount in _sources(app.mounts)}
    return Container(
        name=app.name,
        image=app.image,
        command=tuple(_literal(word) for word in app.entrypoint),
        args=tuple(_literal(word) for word in app.command),
        working_dir=app.workdir,
        env=plain + hidden,
        ports=_ports(app.ports),
        resources=_resources(app),
        volume_mounts=tuple(
            VolumeMount(
                name=_volume_name(mount, numbers[mount.source or mount.target]),
                mount_path=mount.target,
                read_only=True if mount.read_only else None,
            )
            for mount in app.mounts
        ),
        readiness_probe=_probe(app.health, app.ports, delay_s=0) if app.health else None,
        liveness_probe=_probe(app.health, app.ports, delay_s=app.health.grace_s)
        if app.health and app.health.restart
        else None,
        image_pull_policy=_PULL[app.pull],
        security_context=_security(app),
    )


def _literal(text: str) -> str:
    """Text that stays as it is: Kubernetes fills in `$(NAME)` and reads `$$` as `$`; the short form does neither."""
    return re.sub(r"\$(?=[$(])", "$$", text)


def _ports(ports: tuple[Port, ...]) -> tuple[ContainerPort, ...]:
    """A port that is published on a fixed node port and on a free one stands there once."""
    fixed = [ContainerPort(container_port=p.container, host_port=p.node, protocol=p.protocol) for p in ports if p.node]
    there = {(port.container_port, port.protocol) for port in fixed}
    free = dict.fromkeys(
        (p.container, p.protocol) for p in ports if not p.node and (p.container, p.protocol) not in there
    )
    return (*fixed, *(ContainerPort(container_port=number, protocol=protocol) for number, protocol in free))


def _resources(app: App) -> ResourceRequirements:
    requests = {"cpu": app.cpu, "memory": app.memory}
    limits = {"cpu": app.cpu_limit, "memory": app.memory_limit or app.memory}
    return ResourceRequirements(
        requests={name: text for name, text in requests.items() if text},
        limits={name: text for name, text in limits.items() if text},
    )


def _security(app: App) -> SecurityContext | None:
    user, _, group = app.user.partition(":")
    for number in filter(None, (user, group)):
        if not (number.isascii() and number.isdigit()):
            hint = "Write UID or UID:GID, such as 1000:1000."
            raise InvalidError(f'app "{app.name}": user "{app.user}" is not a number', hint=hint)
    if not (app.user or app.read_only):
        return None
    return SecurityContext(
        run_as_user=int(user) if user else None,
        run_as_group=int(group) if group else None,
        read_only_root_filesystem=True if app.read_only else None,
    )


def _probe(health: Health, ports: tuple[Port, ...], *, delay_s: int) -> Probe:
    port = health.port or (ports[0].container if ports else 0)
    return Probe(
        http_get=None if health.http is None else HTTPGetAction(port=port, path=health.http),
        tcp_socket=None if health.tcp is None else TCPSocketAction(port=health.tcp),
        exec=ExecAction(command=health.exec) if health.exec else None,
        initial_delay_seconds=delay_s or None,
        period_seconds=health.interval_s,
        timeout_seconds=health.timeout_s,
        failure_threshold=health.retries,
    )


# --- volumes ---


def _sources(mounts: tuple[Mount, ...]) -> list[tuple[int, Mount]]:
    """One mount for each source, numbered: the same volume in two places is one volume."""
    first: dict[str, Mount] = {}
    for mount in mounts:
        first.setdefault(mount.source or mount.target, mount)
    return list(enumerate(first.values()))


def _volume_name(mount: Mount, index: int) -> str:
    """The volume's own name where it can be one, else a number: it only links the mount to the volume."""
    named = mount.source and not mount.source.startswith("/") and not dns_label_problem(mount.source)
    return mount.source if named else f"volume-{index}"


def _volume(mount: Mount, index: int) -> Volume:
    name = _volume_name(mount, index)
    if not mount.source:
        return Volume(name=name, empty_dir=EmptyDirVolumeSource())
    if mount.source.startswith("/"):
        return Volume(name=name, host_path=HostPathVolumeSource(path=mount.source))
    return Volume(name=name, csi=CSIVolumeSource(driver=VOLUME_DRIVER, volume_attributes={"name": mount.source}))
