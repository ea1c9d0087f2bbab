import asyncio
import base64
import json
import os
import signal

import pytest
import yaml
from msgspec.structs import replace

from korch.api.wire import podcells
from korch.cli.columns import node_state, pod_ports, pod_status, ready_count
from korch.errors import InvalidError, NotFoundError
from korch.resources.codec import to_dict
from korch.resources.meta import Condition, ObjectMeta, ObjectReference
from korch.resources.misc import Event, EventSource, Namespace, Secret
from korch.resources.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
)

from .world import World, a_deployment, a_load, a_node, a_pod, a_set, a_workload, ago, meta, running


def _pod(*states: ContainerState, phase: str = "Running", **fields: object) -> Pod:
    spec = PodSpec(containers=tuple(Container(name=f"c{n}") for n in range(len(states) or 1)), node_name="n1")
    statuses = tuple(ContainerStatus(name=f"c{n}", state=state) for n, state in enumerate(states))
    return Pod(
        metadata=ObjectMeta(name="p"), spec=spec, status=PodStatus(phase=phase, container_statuses=statuses, **fields)
    )  # type: ignore[arg-type]


RUNNING = ContainerState(running=ContainerStateRunning())
WAITING = ContainerState(waiting=ContainerStateWaiting(reason="CrashLoopBackOff"))
OOM = ContainerState(terminated=ContainerStateTerminated(exit_code=137, reason="OOMKilled"))
KILLED = ContainerState(terminated=ContainerStateTerminated(exit_code=137, signal=9))
EXITED = ContainerState(terminated=ContainerStateTerminated(exit_code=3))
DONE = ContainerState(terminated=ContainerStateTerminated(exit_code=0, reason="Completed"))
READY = (Condition(type="Ready", status="True"),)


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        (_pod(phase="Pending"), "Pending"),
        (_pod(phase=""), "Pending"),
        (_pod(RUNNING), "Running"),
        (_pod(WAITING), "CrashLoopBackOff"),
        (_pod(RUNNING, WAITING), "CrashLoopBackOff"),
        (_pod(WAITING, OOM), "CrashLoopBackOff"),
        (_pod(OOM), "OOMKilled"),
        (_pod(KILLED), "Signal:9"),
        (_pod(EXITED), "ExitCode:3"),
        (_pod(DONE, phase="Succeeded"), "Completed"),
        (_pod(reason="Evicted", phase="Failed"), "Evicted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_status_of_a_pod_is_its_most_telling_reason(pod: Pod, word: str) -> None:
    assert pod_status(pod) == word


@pytest.mark.parametrize(("ready", "word"), [((), "NotReady"), (READY, "Running")], ids=["not ready", "ready"])
def test_one_container_done_and_one_running(ready: tuple[Condition, ...], word: str) -> None:
    pod = _pod(DONE, RUNNING, conditions=ready)
    statuses = tuple(replace(status, ready=True) for status in pod.status.container_statuses)
    pod = replace(pod, status=replace(pod.status, container_statuses=statuses))
    assert pod_status(pod) == word


def test_a_deleted_pod_is_terminating_until_it_has_ended() -> None:
    gone = ObjectMeta(name="p", deletion_timestamp=ago(5))
    assert pod_status(replace(_pod(RUNNING), metadata=gone)) == "Terminating"
    assert pod_status(replace(_pod(DONE, phase="Succeeded"), metadata=gone)) == "Completed"


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ((RUNNING,), "Init:0/2"),
        ((DONE, RUNNING), "Init:1/2"),
        ((WAITING,), "Init:CrashLoopBackOff"),
        ((EXITED,), "Init:ExitCode:3"),
    ],
    ids=["first runs", "second runs", "waits", "failed"],
)
def test_init_containers_come_first(states: tuple[ContainerState, ...], word: str) -> None:
    pod = _pod(ContainerState(waiting=ContainerStateWaiting(reason="PodInitializing")), phase="Pending")
    spec = replace(pod.spec, init_containers=(Container(name="i0"), Container(name="i1")))
    inits = tuple(ContainerStatus(name=f"i{n}", state=state) for n, state in enumerate(states))
    pod = replace(pod, spec=spec, status=replace(pod.status, init_container_statuses=inits))
    assert pod_status(pod) == word if states != (DONE, RUNNING) else pod_status(pod) == "Init:1/2"


def test_restarts_say_when_the_last_one_was() -> None:
    last = ContainerState(terminated=ContainerStateTerminated(exit_code=1, finished_at="2026-01-01T00:00:00Z"))
    status = replace(running(restarts=3), last_state=last)
    pod = a_pod("p", status=PodStatus(phase="Running", container_statuses=(status,)))
    assert podcells.restarts(to_dict(pod), 1767225600 + 300) == "3 (5m ago)"
    assert podcells.restarts(to_dict(a_pod("q")), 0) == "0"


def test_nothing_is_ready_on_a_lost_node() -> None:
    pod = a_pod("p")
    assert ready_count(pod) == "1/1"
    assert ready_count(replace(pod, status=replace(pod.status, reason="NodeLost"))) == "0/1"


def test_ports_are_published_on_the_node_address() -> None:
    assert pod_ports(a_pod("p")) == "10.0.0.1:8080->80/tcp"


def test_a_port_that_the_engine_chose_is_shown() -> None:
    free = (ContainerPort(container_port=80, protocol="TCP"), ContainerPort(container_port=90, protocol="TCP"))
    published = (
        ContainerPort(container_port=80, host_port=32768, host_ip="10.0.0.1", protocol="TCP"),
        ContainerPort(container_port=80, host_port=32999, host_ip="::", protocol="TCP"),
    )
    pod = a_pod("p", spec=PodSpec(containers=(Container(name="app", image="web:1", ports=free),)))
    status = replace(pod.status, container_statuses=(replace(running(), published=published),))
    assert pod_ports(replace(pod, status=status)) == "10.0.0.1:32768->80/tcp,90/tcp"


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (a_node("n"), "Ready"),
        (a_node("n", cordoned=True), "Cordoned"),
        (a_node("n", state="AuthFailed"), "AuthFailed"),
        (a_node("n", state="Unreachable", cordoned=True), "Unreachable"),
        (replace(a_node("n"), status=replace(a_node("n").status, conditions=())), "Unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_a_node_is_one_word(node: object, word: str) -> None:
    assert node_state(node) == word  # type: ignore[arg-type]


def test_pressure_is_a_state() -> None:
    node = a_node("n")
    conditions = (*node.status.conditions, Condition(type="DiskPressure", status="True"))
    assert node_state(replace(node, status=replace(node.status, conditions=conditions))) == "DiskPressure"


# --- the command ---


def test_pods(world: World) -> None:
    waiting = ContainerStatus(name="app", state=ContainerState(waiting=ContainerStateWaiting(reason="ErrImagePull")))
    bad = PodStatus(phase="Pending", container_statuses=(waiting,))
    world.put(a_pod("web-1"), a_pod("web-2", status=bad), a_pod("other", namespace="team"))
    result = world.run("get", "pods")
    assert result.stdout.splitlines() == [
        "NAME    READY   STATUS         RESTARTS   AGE",
        "web-1   1/1     Running        0          11m",
        "web-2   0/1     ErrImagePull   0          11m",
    ]
    assert (result.exit_code, result.stderr) == (0, "")


def test_wide_pods_show_where_they_are(world: World) -> None:
    world.put(a_pod("web-1"))
    header, row = world.run("get", "po", "-o", "wide").stdout.splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "PORTS"]
    assert row.split() == ["web-1", "1/1", "Running", "0", "11m", "172.17.0.2", "n1", "10.0.0.1:8080->80/tcp"]


def test_all_namespaces_come_first(world: World) -> None:
    world.put(a_pod("a"), a_pod("b", namespace="team"))
    lines = world.run("get", "pods", "-A").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["NAMESPACE", "NAME"], ["default", "a"], ["team", "b"]]


def test_all_is_pods_deployments_and_sets_with_their_kind(world: World) -> None:
    world.put(*a_workload("web", 1))
    blocks = world.run("get", "all").stdout.split("\n\n")
    assert [block.splitlines()[1].split()[0] for block in blocks] == [
        "pod/web-bcdfg-1",
        "deployment.apps/web",
        "replicaset.apps/web-bcdfg",
    ]


@pytest.mark.parametrize(
    "words", [("deploy/web", "po/web-bcdfg-1"), ("deployments.apps/web", "Pod/web-bcdfg-1")], ids=" ".join
)
def test_slashed_names(world: World, words: tuple[str, ...]) -> None:
    world.put(*a_workload("web", 2))
    assert world.run("get", *words, "-o", "name").stdout == "deployment.apps/web\npod/web-bcdfg-1\n"


def test_deployments_and_their_selector(world: World) -> None:
    world.put(a_deployment("web"))
    header, row = world.run("get", "deploy", "-o", "wide", "--show-labels").stdout.splitlines()
    assert header.split()[:5] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split() == ["web", "2/3", "1", "2", "11m", "app", "web:1", "app=web", "<none>"]


def test_nodes(world: World) -> None:
    world.put(a_node("n1"), a_node("n2", state="AuthFailed", cordoned=True))
    rows = [line.split() for line in world.run("get", "nodes").stdout.splitlines()]
    assert rows[1] == ["n1", "Ready", "<none>", "120m", "korch-0.1.0"]
    assert rows[2][1] == "NotReady(AuthFailed),SchedulingDisabled"


def test_every_kind_has_a_table(world: World) -> None:
    event = Event(
        metadata=meta("e"),
        involved_object=ObjectReference(kind="Pod", name="web-1"),
        reason="Pulled",
        message="image\nis there",
        type="Normal",
        count=1,
        last_timestamp=ago(690),
        source=EventSource(component="keeper"),
    )
    secret = Secret(metadata=meta("s"), type="Opaque", data={"a": "eA=="})
    world.put(event, secret, a_load("n1"), a_set("web-1", "web"), Namespace(metadata=ObjectMeta(name="team")))
    assert "11m         Normal   Pulled   pod/web-1   image ..." in world.run("get", "events").stdout
    assert world.run("get", "secrets").stdout.splitlines()[1].split() == ["s", "Opaque", "1", "11m"]
    assert world.run("get", "nodeloads").stdout.splitlines()[1].split()[:5] == ["n1", "25%", "50%", "25%", "0.50/2"]
    assert world.run("get", "rs").stdout.splitlines()[1].split() == ["web-1", "1", "0", "0", "11m"]
    assert "team" in world.run("get", "ns").stdout


def test_events_come_in_the_order_of_time(world: World) -> None:
    for number, name in enumerate(["c", "a", "b"]):
        world.put(Event(metadata=meta(name), reason=name, last_timestamp=ago(100 - number)))
    rows = [line.split() for line in world.run("get", "events").stdout.splitlines()[1:]]
    assert [row[1] for row in rows] == ["c", "a", "b"]


def test_values_of_secrets_are_base64_in_yaml_and_nowhere_else(world: World) -> None:
    hidden = base64.b64encode(b"hunter2").decode()
    world.put(Secret(metadata=meta("s"), data={"password": hidden}))
    assert yaml.safe_load(world.run("get", "secret", "s", "-o", "yaml").stdout)["data"] == {"password": hidden}
    for shown in (world.run("get", "secret", "s"), world.run("describe", "secret", "s")):
        assert hidden not in shown.output
        assert "hunter2" not in shown.output
    assert "password:  7 bytes" in world.run("describe", "secret", "s").stdout


def test_json_of_one_name_is_the_object_and_of_a_kind_a_list(world: World) -> None:
    world.put(a_pod("web-1"))
    assert json.loads(world.run("get", "pod", "web-1", "-o", "json").stdout)["kind"] == "Pod"
    assert json.loads(world.run("get", "pods", "-o", "json").stdout)["kind"] == "List"
    assert json.loads(world.run("get", "deploy", "-o", "json").stdout)["items"] == []


@pytest.mark.parametrize(
    ("selector", "names"),
    [("app=web", "pod/a"), ("app!=web", "pod/b"), ("app in (web,db)", "pod/a pod/b"), ("app=none", "")],
)
def test_selectors(world: World, selector: str, names: str) -> None:
    world.put(a_pod("a", labels={"app": "web"}), a_pod("b", labels={"app": "db"}))
    assert world.run("get", "pods", "-l", selector, "-o", "name").stdout.split() == names.split()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("pods",), "No pods found in namespace default."),
        (("pods", "-A"), "No pods found."),
        (("nodes",), "No nodes found."),
    ],
    ids=["namespace", "all", "cluster-wide"],
)
def test_nothing_found_is_said_on_stderr(world: World, args: tuple[str, ...], message: str) -> None:
    result = world.run("get", *args)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (0, "", message)


def test_a_missing_name_does_not_hide_the_others(world: World) -> None:
    world.put(a_pod("web-1"))
    result = world.run("get", "pods", "web-2", "web-1", "none")
    assert result.exit_code == NotFoundError.exit_code
    assert "web-1   1/1" in result.stdout
    assert result.stderr.count("Error:") == 2
    assert 'Did you mean "web-1"?' in result.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("widgets",), InvalidError.exit_code, 'there is no kind "widgets"'),
        (("pod/",), InvalidError.exit_code, '"pod/" is not KIND/NAME'),
        (("pod/a/b",), InvalidError.exit_code, '"pod/a/b" is not KIND/NAME'),
        (("pods", "deploy/x"), InvalidError.exit_code, '"pods" is not KIND/NAME'),
        (("",), InvalidError.exit_code, "no kind is named"),
        (("all", "x"), InvalidError.exit_code, '"all" takes no names'),
        (("pods", "x", "-l", "a=b"), 2, "not both"),
        (("pods", "x", "-A"), 2, "one namespace"),
        (("pods", "-l", "=="), InvalidError.exit_code, "=="),
        (("pods,deploy", "-w"), 2, "one kind"),
        (("pods", "-w", "-o", "json"), 2, "one kind"),
        (("pods", "-o", "xml"), 2, "xml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input(world: World, args: tuple[str, ...], code: int, words: str) -> None:
    result = world.run("get", *args)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_watch_prints_changes_until_ctrl_c(world: World) -> None:
    world.put(a_pod("web-1"))

    async def later() -> None:
        async with world.objects() as objects:
            await objects.restore(a_pod("web-2", phase="Pending"))
            await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    async def start() -> None:
        world.background = asyncio.create_task(later())  # type: ignore[attr-defined]

    world.on_open = start
    result = world.run("get", "pods", "-w")
    assert result.exit_code == 130
    assert result.stderr == ""
    assert [line.split()[:3] for line in result.stdout.splitlines()] == [
        ["NAME", "READY", "STATUS"],
        ["web-1", "1/1", "Running"],
        ["web-2", "0/1", "Pending"],
    ]
