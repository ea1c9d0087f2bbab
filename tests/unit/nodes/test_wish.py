import base64
from dataclasses import replace as replace_fields
from typing import Any

import pytest
from msgspec.structs import replace

from korch.engines.wish import EnvValue, Mount, PublishedPort
from korch.errors import InvalidError
from korch.nodes.files import Values
from korch.nodes.machine import ClusterIdentity
from korch.nodes.wish import container_wish, sandbox_wish
from korch.resources.images import image_reference, image_references
from korch.resources.meta import ObjectMeta, OwnerReference
from korch.resources.misc import Secret
from korch.resources.pod import (
    Capabilities,
    Container,
    ContainerPort,
    CSIVolumeSource,
    EmptyDirVolumeSource,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    HostPathVolumeSource,
    Lifecycle,
    LifecycleHandler,
    LocalObjectReference,
    ObjectFieldSelector,
    Pod,
    PodSpec,
    ResourceRequirements,
    SecretKeySelector,
    SecurityContext,
    SleepAction,
    Volume,
    VolumeMount,
)

CLUSTER = ClusterIdentity("c1c1c1c1-2", "lab", "m")


def secret(**data: bytes) -> Secret:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return Secret(metadata=ObjectMeta(name="s", namespace="default"), data=encoded)


SECRETS = {"s": secret(PASSWORD=b"hunter2\nline2", **{"not-a-name": b"x"})}


def pod(container: dict[str, Any] | None = None, *, annotations: dict[str, str] | None = None, **spec: Any) -> Pod:
    main = Container(name="web", image="web:1", **(container or {}))
    meta = ObjectMeta(
        name="web-1",
        namespace="default",
        uid="aaaaaaaa-1",
        labels={"app": "web"},
        annotations=annotations or {},
        owner_references=(
            OwnerReference(api_version="apps/v1", kind="ReplicaSet", name="web", uid="s", controller=True),
        ),
    )
    return Pod(metadata=meta, spec=PodSpec(containers=(main,), **spec))


def wish_of(found: Pod, **more: Any) -> Any:
    settings = {"node_address": "10.0.0.1", "node_name": "n1", "values": Values(SECRETS), **more}
    return container_wish(found, cluster=CLUSTER, **settings)


def test_the_least_pod() -> None:
    wish = wish_of(pod())
    assert wish.name == "korch_lab_default_web-1_web_aaaaaaaa"
    assert (wish.image, wish.entrypoint, wish.args, wish.env, wish.ports, wish.mounts) == ("web:1", (), (), (), (), ())
    assert (wish.restart, wish.stop_grace_s, wish.hostname, wish.user) == ("unless-stopped", 30, "web-1", "")
    assert wish.identity.owner == "web"


def test_the_image_is_the_one_that_the_deploy_resolved() -> None:
    found = pod(annotations={"korch.dev/image": "reg/web@sha256:1"})
    assert image_reference(found) == wish_of(found).image == "reg/web@sha256:1"


def test_the_engine_restarts_only_lone_containers_of_pods_that_always_run() -> None:
    assert wish_of(pod(restart_policy="Always")).restart == "unless-stopped"
    assert wish_of(pod(restart_policy="OnFailure")).restart == "no"
    assert wish_of(pod(restart_policy="Never")).restart == "no"
    assert wish_of(pod(init_containers=(Container(name="i", image="x"),))).restart == "no"


def env(*values: EnvVar, **more: Any) -> dict[str, tuple[str, bool]]:
    found = wish_of(pod({"env": values, **more}))
    return {entry.name: (entry.value, entry.secret) for entry in found.env}


def ref(key: str, *, name: str = "s", optional: bool | None = None) -> EnvVarSource:
    return EnvVarSource(secret_key_ref=SecretKeySelector(name=name, key=key, optional=optional))


def test_environment_in_kubernetes_order() -> None:
    found = env(
        EnvVar(name="A", value="$(PASSWORD)/$(NONE)/$$(A)"),
        EnvVar(name="B", value="x$(A)"),
        EnvVar(name="C", value="plain $(id) $x"),
        env_from=(EnvFromSource(secret_ref=LocalObjectReference(name="s")),),
    )
    assert found == {
        "PASSWORD": ("hunter2\nline2", True),
        "A": ("hunter2\nline2/$(NONE)/$(A)", True),
        "B": ("xhunter2\nline2/$(NONE)/$(A)", True),
        "C": ("plain $(id) $x", False),
    }


def test_prefixes_and_overrides() -> None:
    found = env(
        EnvVar(name="P_PASSWORD", value="mine"),
        env_from=(EnvFromSource(prefix="P_", secret_ref=LocalObjectReference(name="s")),),
    )
    assert found == {"P_PASSWORD": ("mine", False)}


def test_values_from_secrets_and_fields() -> None:
    fields = {"N": "metadata.name", "S": "metadata.namespace", "U": "metadata.uid", "W": "spec.nodeName"}
    more = {"H": "status.hostIP", "L": "metadata.labels['app']", "X": "metadata.annotations['no']"}
    values = tuple(
        EnvVar(name=name, value_from=EnvVarSource(field_ref=ObjectFieldSelector(field_path=path)))
        for name, path in (fields | more).items()
    )
    found = env(
        *values, EnvVar(name="PW", value_from=ref("PASSWORD")), EnvVar(name="O", value_from=ref("no", optional=True))
    )
    assert {name: value for name, (value, _) in found.items()} == {
        "N": "web-1",
        "S": "default",
        "U": "aaaaaaaa-1",
        "W": "n1",
        "H": "10.0.0.1",
        "L": "web",
        "X": "",
        "PW": "hunter2\nline2",
    }
    assert found["PW"][1]


@pytest.mark.parametrize("source", [ref("none"), ref("PASSWORD", name="none")])
def test_missing_secrets_are_named(source: EnvVarSource) -> None:
    with pytest.raises(InvalidError, match=r'web-1: .*"none"'):
        env(EnvVar(name="A", value_from=source))


def test_bytes_that_are_no_text_arrive_too() -> None:
    found = wish_of(pod({"env": (EnvVar(name="A", value_from=ref("B")),)}), values=Values({"s": secret(B=b"\xff\xfe")}))
    assert found.env == (EnvValue("A", "\udcff\udcfe", secret=True),)


def test_commands_read_variables_but_never_secrets() -> None:
    values = (EnvVar(name="A", value="1"), EnvVar(name="PW", value_from=ref("PASSWORD")))
    found = wish_of(pod({"env": values, "command": ("run", "$(A)"), "args": ("$$(A)", "$(none)", "$PW")}))
    assert (found.entrypoint, found.args) == (("run", "1"), ("$(A)", "$(none)", "$PW"))
    with pytest.raises(InvalidError, match="would show a secret"):
        wish_of(pod({"env": values, "args": ("--password=$(PW)",)}))


def test_ports_bind_to_the_node_address() -> None:
    ports = (
        ContainerPort(container_port=80, host_port=8080),
        ContainerPort(container_port=53, host_port=53, protocol="UDP", host_ip="127.0.0.1"),
        ContainerPort(container_port=9, protocol="TCP"),
    )
    found = wish_of(pod({"ports": ports}, annotations={"korch.dev/publish": "9/tcp,80/tcp"}))
    assert found.ports == (
        PublishedPort(80, 8080, "tcp", "10.0.0.1"),
        PublishedPort(53, 53, "udp", "127.0.0.1"),
        PublishedPort(9, 0, "tcp", "10.0.0.1"),
    )


def test_ports_need_a_node_address() -> None:
    with pytest.raises(InvalidError, match="not known"):
        wish_of(pod(annotations={"korch.dev/publish": "80/tcp"}), node_address="")
    assert wish_of(pod(), node_address="").ports == ()


def mounted(volume: Volume, **mount: Any) -> Mount:
    settings = {"name": "v", "mount_path": "/m", **mount}
    (found,) = wish_of(pod({"volume_mounts": (VolumeMount(**settings),)}, volumes=(volume,))).mounts
    assert isinstance(found, Mount)
    return found


def test_volumes() -> None:
    host = HostPathVolumeSource(path="/h", type="DirectoryOrCreate")
    named = CSIVolumeSource(driver="volumes.korch.dev", volume_attributes={"name": "data"}, read_only=True)
    memory = EmptyDirVolumeSource(medium="Memory", size_limit="1Mi")
    assert mounted(Volume(name="v", host_path=host), read_only=True) == Mount("bind", "/m", "/h", True, make=True)
    assert mounted(Volume(name="v", csi=named)) == Mount("volume", "/m", "korch_c1c1c1c1_default_data", True)
    assert mounted(Volume(name="v", empty_dir=memory)) == Mount("tmpfs", "/m", size_bytes=1 << 20)
    assert mounted(Volume(name="v", empty_dir=EmptyDirVolumeSource())) == Mount("scratch", "/m")


def test_volumes_that_cannot_be() -> None:
    with pytest.raises(InvalidError, match='no volume "v"'):
        mounted(Volume(name="other", empty_dir=EmptyDirVolumeSource()))
    mounts = (VolumeMount(name="v", mount_path="/a"), VolumeMount(name="v", mount_path="/b"))
    with pytest.raises(InvalidError, match="two places"):
        wish_of(pod({"volume_mounts": mounts}, volumes=(Volume(name="v", empty_dir=EmptyDirVolumeSource()),)))


def test_resources_and_rights() -> None:
    context = SecurityContext(
        run_as_user=0,
        read_only_root_filesystem=True,
        allow_privilege_escalation=False,
        capabilities=Capabilities(add=("CHOWN",), drop=("ALL",)),
    )
    resources = ResourceRequirements(requests={"cpu": "250m"}, limits={"cpu": 1, "memory": "64Mi"})
    whole = SecurityContext(run_as_user=5, run_as_group=6)
    found = wish_of(pod({"security_context": context, "resources": resources}, security_context=whole))
    assert (found.cpu_request_millis, found.cpu_limit_millis, found.memory_limit_bytes) == (250, 1000, 64 << 20)
    assert (found.user, found.read_only, found.no_new_privileges, found.privileged) == ("0:6", True, True, False)
    assert (found.cap_add, found.cap_drop) == (("CHOWN",), ("ALL",))


def test_the_hash_stands_for_the_spec_and_not_for_secret_values() -> None:
    one = wish_of(pod({"env": (EnvVar(name="A", value_from=ref("PASSWORD")),)}))
    other = wish_of(
        pod({"env": (EnvVar(name="A", value_from=ref("PASSWORD")),)}), values=Values({"s": secret(PASSWORD=b"n")})
    )
    changed = wish_of(pod({"env": (EnvVar(name="A", value="1"),)}))
    assert one.identity.spec_hash == other.identity.spec_hash != changed.identity.spec_hash


# --- several containers ---


def duo(**spec: Any) -> Pod:
    """A pod with an init container and two others that share volumes."""
    mounts = (VolumeMount(name="b", mount_path="/b"), VolumeMount(name="fast", mount_path="/fast"))
    log = Container(
        name="log", image="log:1", volume_mounts=mounts, ports=(ContainerPort(container_port=9, host_port=99),)
    )
    volumes = tuple(Volume(name=name, empty_dir=EmptyDirVolumeSource()) for name in "ab")
    memory = Volume(name="fast", empty_dir=EmptyDirVolumeSource(medium="Memory"))
    made = pod({"ports": (ContainerPort(container_port=8, host_port=88),)}, **spec)
    containers = (*made.spec.containers, log)
    first = (Container(name="first", image="first:1"),)
    return replace(
        made, spec=replace(made.spec, containers=containers, init_containers=first, volumes=(*volumes, memory))
    )


def test_a_sandbox_has_the_name_the_ports_and_the_volumes_of_all() -> None:
    wish = sandbox_wish(duo(), cluster=CLUSTER, node_address="10.0.0.1")
    assert wish.name == "korch_lab_default_web-1_POD_aaaaaaaa"
    assert wish.identity == replace_fields(
        container_wish(duo(), cluster=CLUSTER, node_address="").identity, container="POD"
    )
    assert [(port.container_port, port.host_port) for port in wish.ports] == [(8, 88), (9, 99)]
    assert [(mount.kind, mount.target) for mount in wish.mounts] == [
        ("scratch", "/volumes/0"),
        ("scratch", "/volumes/1"),
    ]
    assert (wish.hostname, wish.restart, wish.stop_signal) == ("web-1", "no", "SIGKILL")


def test_its_members_join_it_and_publish_nothing() -> None:
    found = duo()
    wish = container_wish(found, found.spec.containers[1], cluster=CLUSTER, node_address="10.0.0.1")
    assert (wish.image, wish.identity.container, wish.ports, wish.restart) == ("log:1", "log", (), "no")
    assert wish.sandbox == "korch_lab_default_web-1_POD_aaaaaaaa"
    assert [(mount.kind, mount.source) for mount in wish.mounts] == [("shared", "/volumes/1"), ("tmpfs", "")]
    assert wish_of(pod()).sandbox == ""


def test_each_member_runs_the_exact_image_that_is_on_record_for_it() -> None:
    found = duo(annotations={"korch.dev/image": "first=f@sha256:1,web=w@sha256:2,log=l@sha256:3"})
    assert [image_reference(found, one) for one in (*found.spec.init_containers, *found.spec.containers)] == [
        "f@sha256:1",
        "w@sha256:2",
        "l@sha256:3",
    ]
    assert image_references({}, found.spec) == {"first": "first:1", "web": "web:1", "log": "log:1"}


def test_a_container_with_a_hook_after_its_start_is_not_the_engines_to_restart() -> None:
    hook = Lifecycle(post_start=LifecycleHandler(sleep=SleepAction(seconds=1)))
    assert wish_of(pod({"lifecycle": hook})).restart == "no"
