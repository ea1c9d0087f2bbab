from msgspec.structs import replace

from korch.errors import NotFoundError
from korch.resources.meta import Condition, ObjectMeta, ObjectReference
from korch.resources.misc import Event, EventSource, Lease, LeaseSpec
from korch.resources.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    EnvVar,
    EnvVarSource,
    HostPathVolumeSource,
    HTTPGetAction,
    PodSpec,
    PodStatus,
    Probe,
    ResourceRequirements,
    SecretKeySelector,
    Toleration,
    Volume,
    VolumeMount,
)

from .world import World, a_load, a_node, a_pod, a_set, a_workload, ago, meta


def _event(name: str, uid: str, **fields: object) -> Event:
    values: dict[str, object] = {
        "involved_object": ObjectReference(kind="Pod", name="web-1", uid=uid),
        "reason": "Failed",
        "message": "pull failed: \x1b[31mno\n",
        "type": "Warning",
        "count": 12,
        "first_timestamp": ago(9 * 3600 + 1800),
        "last_timestamp": ago(690),
        "source": EventSource(component="keeper"),
    }
    return Event(metadata=meta(name), **{**values, **fields})  # type: ignore[arg-type]


def test_a_pod_with_everything(world: World) -> None:
    container = Container(
        name="app",
        image="web:1",
        ports=(ContainerPort(container_port=80, protocol="TCP"), ContainerPort(container_port=90, protocol="TCP")),
        command=("serve", "a b"),
        env=(
            EnvVar(name="LEVEL", value="info"),
            EnvVar(name="PW", value_from=EnvVarSource(secret_key_ref=SecretKeySelector(name="s", key="k"))),
        ),
        resources=ResourceRequirements(requests={"cpu": "250m"}, limits={"memory": "64Mi"}),
        readiness_probe=Probe(http_get=HTTPGetAction(port=80, path="/healthz")),
        volume_mounts=(VolumeMount(name="data", mount_path="/data", read_only=True),),
    )
    spec = PodSpec(
        containers=(container,),
        node_name="n1",
        volumes=(Volume(name="data", host_path=HostPathVolumeSource(path="/srv")),),
        node_selector={"zone": "r1"},
        tolerations=(Toleration(key="gpu", effect="NoSchedule"),),
    )
    ended = ContainerState(terminated=ContainerStateTerminated(exit_code=1, message="last words", finished_at=ago(690)))
    status = PodStatus(
        phase="Running",
        host_ip="10.0.0.1",
        container_statuses=(
            ContainerStatus(
                name="app",
                restart_count=2,
                state=ended,
                published=(ContainerPort(container_port=80, host_port=32768, host_ip="10.0.0.1", protocol="TCP"),),
            ),
        ),
        conditions=(Condition(type="Ready", status="False", reason="ProbeFailed", message="503"),),
    )
    pod = a_pod(
        "web-1", spec=spec, status=status, labels={"app": "web"}, annotations={"korch.dev/decision": "{}", "x": "y"}
    )
    world.put(pod, _event("mine", pod.metadata.uid), _event("former", "another-uid", reason="Old"))
    text = world.run("describe", "pod", "web-1").stdout
    lines = [line.split() for line in text.splitlines()]
    for expected in (
        "Name: web-1",
        "Labels: app=web",
        "Annotations: x: y",
        "Node: n1/10.0.0.1",
        "Status: ExitCode:1",
        "Ports: 80/TCP, on the node: 32768",
        "90/TCP",
        "Command: serve 'a b'",
        "State: Terminated, exit code 1, 11m ago",
        "last words",
        "Restart Count: 2",
        "Limits: memory: 64Mi",
        "Requests: cpu: 250m",
        "Readiness: http-get http://:80/healthz delay=0s timeout=1s period=10s #success=1 #failure=3",
        "Environment: LEVEL: info",
        'PW: <set to the key "k" of secret "s">',
        "Mounts: /data from data (ro)",
        "Volumes: data: path /srv of the node",
        "Node-Selectors: zone=r1",
        "Tolerations: gpu:NoSchedule",
        "Ready False ProbeFailed 503",
        "Warning Failed 11m (x12 over 9h) keeper pull failed: \\x1b[31mno",
    ):
        assert expected.split() in lines, expected
    assert "Old" not in text
    assert "\x1b" not in text


def test_a_node_with_its_load_and_pods(world: World) -> None:
    world.put(
        a_node("n1", labels={"disk": "ssd"}),
        a_load("n1"),
        a_pod("web-1"),
        a_pod("gone", phase="Failed"),
        a_pod("far", node="n2"),
    )
    text = world.run("describe", "node/n1").stdout
    assert "Memory:    50% of 2Gi" in text
    assert "Engine:        docker://20.10.24" in text
    assert "web-1" in text
    assert "gone" not in text
    assert "far" not in text


def test_a_deployment(world: World) -> None:
    world.put(*a_workload("web", 3))
    text = world.run("describe", "deploy", "web").stdout
    assert "3 desired | 1 updated | 2 total | 2 available | 0 unavailable" in text
    assert "Selector:     app=web" in text
    assert text.rstrip().endswith("Events:       <none>")


def test_what_a_reason_means_is_a_command_away(world: World) -> None:
    pod, other = a_pod("web-1"), a_pod("web-2")
    late = _event("e2", pod.metadata.uid, reason="Unhealthy", last_timestamp=ago(5))
    world.put(pod, other, _event("e1", pod.metadata.uid, reason="BackOff"), late)
    world.put(_event("e3", other.metadata.uid, reason="SomebodyElses"))
    assert world.run("describe", "pod", "web-1").stdout.endswith("what to do: korch why Unhealthy\n")
    assert "korch why" not in world.run("describe", "pod", "web-2").stdout


def test_a_replica_set_names_its_owner(world: World) -> None:
    world.put(a_set("web-bcdfg", "web"))
    assert "Controlled By:  Deployment/web" in world.run("describe", "rs", "web-bcdfg").stdout


def test_a_kind_without_a_sheet_is_yaml(world: World) -> None:
    world.put(Lease(metadata=meta("lead"), spec=LeaseSpec(holder_identity="me", lease_transitions=4)))
    text = world.run("describe", "lease", "lead").stdout
    assert "  spec:\n    holderIdentity: me\n    leaseTransitions: 4" in text


def test_several_objects_are_apart(world: World) -> None:
    world.put(a_pod("a"), a_pod("b"), replace(a_pod("c"), metadata=ObjectMeta(name="c", namespace="team", uid="c")))
    text = world.run("describe", "pods").stdout
    assert text.count("Namespace:") == 2
    assert "\n\n\nName:" in text


def test_an_unknown_name(world: World) -> None:
    result = world.run("describe", "pod", "none")
    assert result.exit_code == NotFoundError.exit_code
    assert "none" in result.stderr


def test_none_of_a_kind(world: World) -> None:
    assert world.run("describe", "deploy").stderr == "No deployments found.\n"
