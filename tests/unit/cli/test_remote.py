"""The command line over HTTPS says what it says beside the state file."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from korch.api.streams.service import Streams
from korch.client.base import Check, ContainerUsage, NodeSeen, NodeUsage
from korch.errors import HostUnreachableError
from korch.resources.defaults import with_defaults
from korch.resources.meta import ObjectReference
from korch.resources.misc import Event, EventSource, Namespace, Secret
from korch.resources.workload import Deployment
from tests.unit.api.streams.test_service import FakeDoor
from tests.unit.client.served import Served, served

from .test_rollout import revision, wish
from .world import FakeClient, World, a_deployment, a_load, a_node, a_pod, a_workload, ago, installed, meta


def prepared(world: World) -> World:
    """Some of everything."""
    stored = (
        *a_workload("app", 2),
        wish("web:3"),
        revision(1, "web:1"),
        revision(3, "web:3", replicas=3),
        a_deployment("idle", 0),
        a_pod("alone", namespace="shop"),
        a_pod("new", node="", phase="Pending"),
        a_node("n1"),
        a_node("n2", cordoned=True),
        a_load("n1"),
        a_load("n2"),
        Secret(metadata=meta("s"), data={"k": "dg=="}),
        *(Namespace(metadata=replace(meta(name), namespace="")) for name in ("default", "empty")),
        Event(
            metadata=meta("e1"),
            involved_object=ObjectReference(kind="Pod", name="app-bcdfg-1", namespace="default"),
            reason="Started",
            message="Started container app",
            type="Normal",
            source=EventSource(component="keeper"),
            first_timestamp=ago(200),
            last_timestamp=ago(200),
            count=1,
        ),
    )
    world.put(*map(with_defaults, stored))
    world.seen = [
        NodeSeen(a_node("n1"), a_load("n1")),
        NodeSeen(a_node("n2"), None, HostUnreachableError("n2: no route to host", host="n2", hint="Look at it.")),
    ]
    world.usage = [NodeUsage("n1", (ContainerUsage("uid-default-app-bcdfg-1", "app", 250, 64 << 20),))]
    world.history = {"n1": ({"cpu": 0.25, "memory": 0.5, "load1": 1.0},)}
    world.checks = {"n1": (Check("ssh", "ok", "answers"), Check("engine", "warn", "is old", "Make it newer."))}
    return world


@pytest.fixture
def site(world: World, tmp_path: Path) -> Iterator[Served]:
    prepared(world)
    streams = lambda objects: Streams(objects, FakeDoor())  # type: ignore[arg-type] # noqa: E731
    with served(world.path, tmp_path / "api", lambda store: FakeClient(world, store), streams) as found:
        yield found


def over_https(world: World, site: Served, *args: str, **env: str) -> Any:
    """The same command on a machine that has nothing but a kubeconfig."""
    config = site.folder / "config"
    if not config.exists():
        site.kubeconfig()
    far = World(site.folder / "elsewhere")
    return far.run(*args, env={"KUBECONFIG": str(config), **env})


def _words(text: str) -> str:
    """Ages pass while a test runs."""
    return re.sub(r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b", "AGE", re.sub(r"\d+[mh](?=\s|$)", "AGE", text))


COMMANDS = [
    ("get", "pods"),
    ("get", "pods", "-A", "-o", "wide"),
    ("get", "pods", "-o", "json"),
    ("get", "pod", "new", "-o", "yaml"),
    ("get", "deploy,rs,nodes,secrets"),
    ("get", "all", "-A"),
    ("get", "pods", "-l", "app in (web,x),!y"),
    ("get", "pods", "-l", "app in ("),
    ("get", "pod", "apq-bcdfg-1"),
    ("get", "pod", "no such/name"),
    ("get", "pods", "-n", "nowhere"),
    ("get", "nodes", "-o", "yaml"),
    ("describe", "pod", "app-bcdfg-1"),
    ("describe", "deploy", "app"),
    ("describe", "node", "n1"),
    ("describe", "pod", "nobody"),
    ("events",),
    ("events", "--for", "deploy/app", "-o", "json"),
    ("status",),
    ("status", "-o", "json"),
    ("nodes",),
    ("nodes", "-o", "json"),
    ("node", "check", "n1"),
    ("node", "check", "n9"),
    ("top", "nodes"),
    ("top", "pods"),
    ("why", "app"),
    ("why", "pod/new"),
    ("whatif", "app", "--replicas", "4"),
    ("rollout", "status", "app"),
    ("rollout", "history", "web"),
    ("node", "drain", "n1", "--dry-run"),
    ("rebalance", "--plan"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_both_forms_say_the_same(world: World, site: Served, command: tuple[str, ...]) -> None:
    near, far = world.run(*command), over_https(world, site, *command)
    assert (_words(far.stdout), _words(far.stderr), far.exit_code) == (
        _words(near.stdout),
        _words(near.stderr),
        near.exit_code,
    )
    assert near.output
    assert "did not expect" not in near.output
    assert near.exit_code != 2, near.output


CHANGES = [
    ("scale", "idle=4", "--no-wait"),
    ("scale", "none=4", "--no-wait"),
    ("rollout", "pause", "idle"),
    ("rollout", "pause", "idle"),
    ("node", "cordon", "n1", "n9"),
    ("node", "uncordon", "n1"),
    ("deploy", "nginx", "--name", "shop", "--port", "80", "--no-wait"),
    ("deploy", "nginx", "--name", "shop", "--port", "80", "--no-wait"),
    ("deploy", "nginx", "--name", "shop", "--port", "http", "--no-wait"),
    ("deploy", "nginx", "--name", "Shop", "--no-wait"),
    ("deploy", "nginx", "--name", "there", "-n", "nowhere", "--no-wait"),
    ("plan", "nginx", "--name", "shop"),
    ("delete", "idle", "--no-wait"),
    ("delete", "idle", "--no-wait"),
    ("delete", "namespace", "shop"),
    ("delete", "namespace", "default"),
    ("delete", "namespace", "empty"),
    ("node", "rm", "n9"),
    ("rebalance", "--auto"),
    ("get", "all,nodes", "-A"),
]


def test_changes_are_the_same_in_both_forms(tmp_path: Path, world: World, site: Served) -> None:
    with pytest.MonkeyPatch.context() as patch:
        beside = World(tmp_path / "beside")
        for _ in installed(beside, patch):
            prepared(beside)
            near = [beside.run(*command) for command in CHANGES]
    far = [over_https(world, site, *command) for command in CHANGES]
    for command, one, other in zip(CHANGES, near, far, strict=True):
        told = [(_words(found.stdout), _words(found.stderr), found.exit_code) for found in (one, other)]
        assert told[0] == told[1], command
        assert one.output, command
        assert "did not expect" not in one.output, command
        assert one.exit_code != 2, one.output
    assert world.auto_rebalance is beside.auto_rebalance is True


# --- which cluster is meant ---


def here(world: World, *args: str, **env: str) -> tuple[int, str]:
    found = world.run(*args, env=env)
    return found.exit_code, found.output


def test_kubeconfig_in_the_environment_takes_nobody_away_from_a_local_cluster(world: World, site: Served) -> None:
    config = str(site.kubeconfig())
    assert here(world, "get", "deploy", KUBECONFIG=config)[0] == 0
    assert site.asked == []
    for env in ({"KORCH_CONTEXT": "korch-test"}, {"KORCH_SERVER": site.url}):
        assert here(world, "get", "deploy", KUBECONFIG=config, **env)[0] == 0
        assert site.asked
        site.asked.clear()
        local = here(world, "--cluster", "default", "get", "deploy", KUBECONFIG=config, **env)
        assert local[0] == 0
        assert site.asked == []


def test_the_option_may_stand_on_either_side_and_goes_before_the_environment(world: World, site: Served) -> None:
    config = str(site.kubeconfig())
    for words in (("--kubeconfig", config, "get", "deploy"), ("get", "deploy", "--kubeconfig", config)):
        assert here(world, *words, KORCH_SERVER="https://127.0.0.1:1", KORCH_CONTEXT="none")[0] != 0
        assert here(world, *words, "--server", site.url, "--context", "korch-test", KORCH_CONTEXT="none")[0] == 0
        assert site.asked
        site.asked.clear()


def test_the_namespace_of_the_context_is_the_default(world: World, site: Served) -> None:
    config = str(site.kubeconfig("view", "shop", name="shop"))
    far = ("--kubeconfig", config)
    assert "alone" in here(world, "get", "pods", *far)[1]
    assert "alone" in here(world, *far, "get", "pods")[1]
    code, text = here(world, "get", "pods", "-n", "default", *far)
    assert (code, "forbidden" in text) == (7, True)


@pytest.mark.parametrize(
    "command",
    [
        ("backup", "x.db"),
        ("restore", "x.db"),
        ("master",),
        ("adopt",),
        ("kubeconfig",),
        ("proxy",),
        ("token", "list"),
        ("cluster", "show"),
        ("image", "list"),
        ("node", "trust", "n1", "--yes"),
    ],
    ids=" ".join,
)
def test_what_belongs_beside_the_state_says_so(world: World, site: Served, command: tuple[str, ...]) -> None:
    config = str(site.kubeconfig())
    for words in (("--kubeconfig", config, *command), ("--context", "korch-test", *command)):
        code, text = here(world, *words, KUBECONFIG=config)
        assert code == 7, text
        assert "is not done over the API" in text
        assert "without --server, --context" in text


def test_words_that_mean_two_clusters_are_refused(world: World, site: Served) -> None:
    config = str(site.kubeconfig())
    for words, says in (
        (("--kubeconfig", config, "-i", "h1", "get", "pods"), "-i one of this machine"),
        (("--cluster", "a", "get", "pods", "--server", site.url), "--cluster one of this machine"),
        (("nodes", "--limit", "n1", "--kubeconfig", config), "--limit is a pattern of an inventory"),
    ):
        code, text = here(world, *words)
        assert code == 2
        assert says in text


def test_a_machine_without_anything_says_how_a_cluster_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "korch.master.local", raising=False)
    far = World(tmp_path / "empty")
    for env in ({}, {"KUBECONFIG": str(tmp_path / "missing")}):
        code, text = here(far, "get", "pods", **env)
        assert code == 4
        assert 'cluster "default" does not exist' in text
    code, text = here(far, "get", "pods", KORCH_CONTEXT="x", KUBECONFIG=str(tmp_path / "missing"))
    assert code == 4
    assert f"there is no kubeconfig {tmp_path / 'missing'}" in text


def test_logs_and_exec_come_over_https(world: World, site: Served) -> None:
    # FakeDoor stands for the node: a line of log, and a program that ends with 4
    assert over_https(world, site, "logs", "app-bcdfg-1").stdout == "a line\n"
    lines = over_https(world, site, "logs", "app", "--tail", "1").stdout.splitlines()
    assert sorted(lines) == ["[app-bcdfg-1] a line", "[app-bcdfg-2] a line"]


def test_who_may_only_change_one_namespace_works_there(world: World, site: Served) -> None:
    config = str(site.kubeconfig("edit", "shop", name="shop"))
    deploy = ("deploy", "nginx", "--name", "mine", "--port", "80:80", "--no-wait")
    world.info = replace(world.info, doing="master")  # who knows the nodes, so nobody has to look at them
    for words in (deploy, ("scale", "mine=2", "--no-wait")):
        code, text = here(world, *words, "--kubeconfig", config)
        assert code == 0, text
    assert world.read(Deployment, "mine", "shop").spec.replicas == 2
    assert here(world, "delete", "mine", "--no-wait", "--kubeconfig", config) == (0, "deployment/mine deleted\n")
    code, text = here(world, *deploy, "-n", "default", "--kubeconfig", config)
    assert (code, "forbidden" in text) == (7, True)
