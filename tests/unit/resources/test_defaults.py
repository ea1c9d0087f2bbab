import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.resources.codec import decode, encode, from_dict, to_dict
from korch.resources.defaults import pull_policy, with_defaults
from korch.resources.kinds import DEPLOYMENT, KINDS, POD
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace, Secret
from korch.resources.node import Node
from korch.resources.pod import (
    Container,
    ContainerPort,
    EmptyDirVolumeSource,
    EnvVar,
    HTTPGetAction,
    Pod,
    PodSpec,
    Probe,
    ResourceRequirements,
    TCPSocketAction,
    Toleration,
    Volume,
)
from korch.resources.rbac import RoleRef
from korch.resources.templates import (
    resolve_int_or_percent,
    rolling_bounds,
    secret_names,
    spec_hash,
    template_hash,
)
from korch.resources.times import parse_time, rfc3339, rfc3339_micro
from korch.resources.workload import (
    Deployment,
    DeploymentSpec,
    DeploymentStrategy,
    PodTemplateSpec,
    RollingUpdateDeployment,
)

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8)
PROBES = st.none() | st.builds(Probe, tcp_socket=st.builds(TCPSocketAction, port=st.integers(1, 65535) | NAMES))
CONTAINERS = st.builds(
    Container,
    name=NAMES,
    image=st.sampled_from(["web", "web:1", "web:latest", "r/web@sha256:" + "0" * 64]),
    args=st.lists(TEXT, max_size=2).map(tuple),
    env=st.lists(st.builds(EnvVar, name=NAMES, value=TEXT), max_size=2).map(tuple),
    ports=st.lists(st.builds(ContainerPort, container_port=st.integers(1, 9)), max_size=2).map(tuple),
    resources=st.builds(ResourceRequirements, limits=st.dictionaries(st.sampled_from(["cpu", "memory"]), NAMES)),
    readiness_probe=PROBES,
)
VOLUMES = st.builds(Volume, name=NAMES, empty_dir=st.builds(EmptyDirVolumeSource))
SPECS = st.builds(
    PodSpec,
    containers=st.lists(CONTAINERS, max_size=2).map(tuple),
    volumes=st.lists(VOLUMES, max_size=1).map(tuple),
    tolerations=st.lists(st.builds(Toleration, key=NAMES), max_size=1).map(tuple),
    node_selector=st.dictionaries(NAMES, NAMES, max_size=2),
)
METAS = st.builds(ObjectMeta, name=NAMES, labels=st.dictionaries(NAMES, TEXT, max_size=2))
TEMPLATES = st.builds(PodTemplateSpec, metadata=st.builds(ObjectMeta, labels=st.dictionaries(NAMES, NAMES)), spec=SPECS)
DEPLOYMENTS = st.builds(
    Deployment,
    metadata=METAS,
    spec=st.builds(DeploymentSpec, replicas=st.none() | st.integers(0, 9), template=TEMPLATES),
)
PODS = st.builds(Pod, metadata=METAS, spec=SPECS)


@given(obj=PODS | DEPLOYMENTS)
def test_objects_survive_the_wire(obj):
    kind = POD if isinstance(obj, Pod) else DEPLOYMENT
    once = decode(kind, encode(obj))
    assert once.spec == obj.spec
    assert once.metadata == obj.metadata
    assert encode(once) == encode(obj)
    assert from_dict(kind, to_dict(obj)) == once


@given(obj=PODS | DEPLOYMENTS)
def test_defaults_are_filled_in_once(obj):
    ready = with_defaults(obj)
    assert with_defaults(ready) == ready


@given(template=TEMPLATES)
def test_equal_templates_have_equal_hashes_on_either_side_of_the_wire(template):
    wrapped = Deployment(spec=DeploymentSpec(template=template))
    again = decode(DEPLOYMENT, encode(wrapped)).spec.template
    assert template_hash(again) == template_hash(template)
    assert spec_hash(again.spec) == spec_hash(template.spec)


NEEDED = {
    "ControllerRevision": {"revision": 1},
    "EndpointSlice": {"address_type": "IPv4"},
    "RoleBinding": {"role_ref": RoleRef(kind="Role", name="a")},
    "ClusterRoleBinding": {"role_ref": RoleRef(kind="ClusterRole", name="a")},
    "PriorityClass": {"value": 0},
    "StorageClass": {"provisioner": "none"},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_can_be_written_and_read(kind):
    obj = with_defaults(kind.type(metadata=ObjectMeta(name="a"), **NEEDED.get(kind.name, {})))
    again = decode(kind, encode(obj))
    assert (again.kind, again.api_version) == (kind.name, kind.api_version)
    assert again.metadata.namespace == ("default" if kind.namespaced else "")


# --- defaults ---


def test_a_pod():
    container = Container(
        name="a",
        image="web:1",
        ports=(ContainerPort(container_port=1),),
        readiness_probe=Probe(http_get=HTTPGetAction(port=1)),
    )
    spec = with_defaults(Pod(spec=PodSpec(containers=(container,)))).spec
    assert (spec.restart_policy, spec.termination_grace_period_seconds) == ("Always", 30)
    first = spec.containers[0]
    assert first.ports[0].protocol == "TCP"
    assert first.image_pull_policy == "IfNotPresent"
    probe = first.readiness_probe
    assert (probe.period_seconds, probe.timeout_seconds, probe.failure_threshold, probe.success_threshold) == (
        10,
        1,
        3,
        1,
    )
    assert (probe.http_get.path, probe.http_get.scheme) == ("/", "HTTP")


def test_a_grace_of_zero_stays_zero():
    assert (
        with_defaults(Pod(spec=PodSpec(termination_grace_period_seconds=0))).spec.termination_grace_period_seconds == 0
    )


def test_a_deployment():
    template = PodTemplateSpec(metadata=ObjectMeta(labels={"app": "web"}))
    spec = with_defaults(Deployment(spec=DeploymentSpec(template=template))).spec
    assert (spec.replicas, spec.revision_history_limit, spec.progress_deadline_seconds) == (1, 10, 600)
    assert spec.strategy == DeploymentStrategy(
        type="RollingUpdate", rolling_update=RollingUpdateDeployment(max_surge="25%", max_unavailable="25%")
    )
    assert spec.selector.match_labels == {"app": "web"}
    assert with_defaults(Deployment(spec=DeploymentSpec(replicas=0))).spec.replicas == 0


def test_a_limit_is_also_the_request():
    resources = ResourceRequirements(limits={"cpu": 1, "memory": "1Gi"}, requests={"cpu": "100m"})
    container = Container(name="a", image="a", resources=resources)
    found = with_defaults(Pod(spec=PodSpec(containers=(container,)))).spec.containers[0].resources
    assert found.requests == {"cpu": "100m", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("host:5000/web", "Always"),
        ("host:5000/web:1", "IfNotPresent"),
        ("web@sha256:0", "IfNotPresent"),
        ("web:latest@sha256:0", "IfNotPresent"),
    ],
)
def test_pull_policies(image, policy):
    assert pull_policy(image) == policy


def test_plain_text_of_a_secret_becomes_data_and_wins():
    secret = with_defaults(Secret(data={"A": "eA==", "B": "eQ=="}, string_data={"A": "ü\n"}))
    assert secret.data == {"A": "w7wK", "B": "eQ=="}
    assert (secret.string_data, secret.type) == ({}, "Opaque")


def test_cluster_wide_kinds_get_no_namespace():
    assert with_defaults(Node(metadata=ObjectMeta(name="n"))).metadata.namespace == ""
    assert with_defaults(Namespace(metadata=ObjectMeta(name="n"))).status.phase == "Active"


# --- templates ---


def spec(**changes):
    return PodSpec(containers=(Container(name="a", image="web:1", **changes),))


def test_the_hash_is_a_label_value_and_knows_every_change():
    base = PodTemplateSpec(metadata=ObjectMeta(labels={"a": "b"}), spec=spec())
    hashes = {
        template_hash(t)
        for t in (
            base,
            PodTemplateSpec(metadata=ObjectMeta(labels={"a": "c"}), spec=spec()),
            PodTemplateSpec(metadata=ObjectMeta(labels={"a": "b"}, annotations={"x": "y"}), spec=spec()),
            PodTemplateSpec(metadata=ObjectMeta(labels={"a": "b"}), spec=spec(args=("x",))),
            PodTemplateSpec(metadata=ObjectMeta(labels={"a": "b"}), spec=spec(env=(EnvVar(name="A", value="x"),))),
        )
    }
    assert len(hashes) == 5
    assert all(len(found) == 10 and found.isalnum() and found.islower() for found in hashes)
    labelled = PodTemplateSpec(metadata=ObjectMeta(labels={"a": "b", "pod-template-hash": "x"}), spec=spec())
    assert template_hash(labelled) == template_hash(base)


def test_the_hash_does_not_depend_on_the_order_of_keys():
    one = PodTemplateSpec(metadata=ObjectMeta(labels={"a": "1", "b": "2"}), spec=spec())
    two = PodTemplateSpec(metadata=ObjectMeta(labels={"b": "2", "a": "1"}), spec=spec())
    assert template_hash(one) == template_hash(two)


def test_the_spec_hash_is_about_the_container_not_about_the_place():
    here = PodSpec(
        containers=spec().containers, node_name="n1", node_selector={"a": "b"}, tolerations=(Toleration(key="x"),)
    )
    assert spec_hash(here) == spec_hash(spec())
    assert spec_hash(spec(), publish="80/tcp") != spec_hash(spec())
    assert spec_hash(spec(working_dir="/x")) != spec_hash(spec())


def test_secret_names_of_a_pod():
    data = {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [
            {
                "name": "a",
                "envFrom": [{"secretRef": {"name": "all"}}],
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}},
                    {"name": "B", "value": "x"},
                ],
            }
        ],
    }
    assert secret_names(from_dict(POD, {"spec": data}).spec) == {"pull", "all", "one"}
    assert secret_names(PodSpec()) == frozenset()


@pytest.mark.parametrize(
    ("value", "total", "up", "down"),
    [(2, 10, 2, 2), ("25%", 10, 3, 2), ("25%", 4, 1, 1), ("0%", 7, 0, 0), ("100%", 7, 7, 7), ("25%", 0, 0, 0)],
)
def test_counts_and_percentages(value, total, up, down):
    assert resolve_int_or_percent(value, total, round_up=True) == up
    assert resolve_int_or_percent(value, total, round_up=False) == down


@given(
    surge=st.integers(0, 5) | st.integers(0, 100).map(lambda n: f"{n}%"),
    gap=st.integers(0, 5) | st.integers(0, 100).map(lambda n: f"{n}%"),
    replicas=st.integers(0, 50),
)
def test_a_rolling_update_can_always_move(surge, gap, replicas):
    strategy = DeploymentStrategy(rolling_update=RollingUpdateDeployment(max_surge=surge, max_unavailable=gap))
    found_surge, found_gap = rolling_bounds(strategy, replicas)
    assert found_surge + found_gap >= 1
    assert min(found_surge, found_gap) >= 0


def test_rolling_bounds_by_default():
    assert rolling_bounds(DeploymentStrategy(), 4) == (1, 1)
    assert rolling_bounds(DeploymentStrategy(), 3) == (1, 0)


# --- times ---


@given(unix_s=st.integers(0, 4_000_000_000))
def test_times_are_read_back(unix_s):
    assert parse_time(rfc3339(unix_s)) == unix_s
    assert parse_time(rfc3339_micro(unix_s + 0.25)) == unix_s + 0.25


def test_times_with_and_without_zone():
    assert rfc3339(0.9) == "1970-01-01T00:00:00Z"
    assert parse_time("1970-01-01T01:00:00+01:00") == 0
    assert parse_time("1970-01-01T00:00:00") == 0
