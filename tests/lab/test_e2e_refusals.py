"""Wishes that cannot come true: images, ports and places that are not there. One clear error, nothing left over."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from korch.lab import boot
from korch.lab.lab import Lab
from tests.lab.conftest import wiped
from tests.lab.korch_cli import Run, Site, make_site, write_inventory

QUICK = ("--settle", "0")


@pytest.fixture(scope="module", params=["docker", "podman"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """n1 in rack a, n2 and n3 in rack b; n3 has a taint."""
    lab: Lab = request.getfixturevalue(f"{request.param}_lab")
    home = tmp_path_factory.mktemp("refusals")
    hosts = {
        "n1": {"korch_labels": {"rack": "a"}},
        "n2": {"korch_labels": {"rack": "b"}},
        "n3": {"korch_labels": {"rack": "b"}, "korch_taints": ["gpu=yes:NoSchedule"]},
    }
    return make_site(wiped(lab), home, inventory=write_inventory(home / "hosts.yml", lab, hosts))


@pytest.fixture(autouse=True)
def nothing_is_left_over(site: Site) -> Iterator[None]:
    """After each test: no container of korch's, and somebody else's as before."""
    before = site.foreign()
    yield
    if site.korch.objects("deploy"):
        site.clear()
    assert site.containers() == []
    assert site.foreign() == before


def refused(site: Site, *words: str, status: int, says: tuple[str, ...]) -> Run:
    return site.korch.fails("deploy", *words, *QUICK, status=status, says=says)


# --- images ---


@pytest.mark.parametrize("name", ["nope:1", "web:no-such-tag"])
def test_unknown_image(site: Site, name: str) -> None:
    image = f"{site.lab.registry}/{name}"
    run = refused(site, image, "--name", "ghost", status=8, says=(image,))
    assert re.search(r"^Error: n[123]: image ", run.err, re.MULTILINE), run
    assert re.search("not found|does not exist|unknown|no such", run.err), run
    assert site.korch.objects("deploy") == []  # nothing was recorded: there is nothing to make true


def test_unknown_image_of_a_running_app_leaves_it_alone(site: Site) -> None:
    site.korch("deploy", site.image(), "--name", "web", *QUICK)
    before = [one.birth for one in site.of("web")]
    refused(site, f"{site.lab.registry}/web:nope", "--name", "web", status=8, says=("web:nope",))
    assert [one.birth for one in site.of("web")] == before


def test_registry_that_does_not_answer(site: Site) -> None:
    registry = site.lab.registry.replace(":5000", ":5999")
    run = refused(site, f"{registry}/web:1", "--name", "ghost", status=8, says=(registry,))
    assert re.search("refused|cannot be reached|does not answer", run.err), run
    assert site.korch.objects("deploy") == []


def test_image_that_ends_at_once(site: Site) -> None:
    run = refused(site, site.image("crash"), "--name", "crash", "--replicas", "2", status=9, says=("crash-",))
    assert re.search("status 3|ended and was started again", run.err), run  # the engine may be quicker than the look
    assert "web crash: cannot read /etc/web.conf" in run.err
    assert " on n" in run.err


def test_image_that_ends_after_a_second_fails_the_default_deploy(site: Site) -> None:
    words = ("deploy", site.image(), "--name", "brief", "--env", "CRASH_AFTER_S=1")
    run = site.korch.fails(*words, status=9, says=("brief-", "out of luck after 1 s"))
    assert re.search("status 3|ended and was started again", run.err), run


def test_image_that_ends_well_is_no_service(site: Site) -> None:
    manifest = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: done, annotations: {{korch.dev/auto-rollback: "true"}}}}
spec:
  selector: {{matchLabels: {{app: done}}}}
  template:
    metadata: {{labels: {{app: done}}}}
    spec:
      containers: [{{name: done, image: "{site.image()}", command: ["true"]}}]
"""
    run = site.korch.fails("deploy", "-f", "-", stdin=manifest, status=9, says=("done-",))
    assert re.search("status 0|ended and was started again", run.err), run


def test_command_that_is_not_in_the_image(site: Site) -> None:
    manifest = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: lost}}
spec:
  selector: {{matchLabels: {{app: lost}}}}
  template:
    metadata: {{labels: {{app: lost}}}}
    spec:
      containers: [{{name: lost, image: "{site.image()}", command: ["no-such-program"]}}]
"""
    site.korch.fails("deploy", "-f", "-", *QUICK, stdin=manifest, status=9, says=("lost-", "no-such-program"))


# --- ports ---


LISTEN = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def listening(site: Site, node: str, port: int) -> Iterator[None]:
    """Somebody else's program on the node has the port."""
    script = ("python3", "-c", LISTEN, site.lab.address(node), str(port))
    words = boot.enter_words(site.lab.pid(node), (), script)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield
        program.communicate("")


def test_port_taken_by_another_program(site: Site) -> None:
    words = (site.image(), "--name", "port", "--port", "18090:8080", "--limit", "n1")
    with listening(site, "n1", 18090):
        run = refused(
            site, *words, status=9, says=(f"port {site.lab.address('n1')}:18090 of the node is taken", " on n1: ")
        )
        assert "Choose another host port" in run.err
    done = site.korch("deploy", *words, *QUICK)  # it is free again
    assert [row[1] for row in done.rows()] == ["n1"]


def test_port_taken_by_another_container_names_it(site: Site) -> None:
    engine, address = site.engine("n1"), site.lab.address("n1")
    site.shell("n1", f"{engine} run -d --name holder -p {address}:18091:8080 $1", site.image("2"))
    try:
        words = (site.image(), "--name", "port", "--port", "18091:8080", "--limit", "n1")
        run = refused(site, *words, status=9, says=("18091", "holder", " on n1: "))
        assert re.search("taken|in use", run.err), run
    finally:
        site.shell("n1", f"{engine} rm -f holder")


def test_port_of_another_app(site: Site) -> None:
    words = ("--port", "18092:8080", "--replicas", "2")
    site.korch("deploy", site.image(), "--name", "first", *words, *QUICK)
    before = [one.birth for one in site.of("first")]
    refused(
        site, site.image(), "--name", "second", *words, "--timeout", "5", status=9,
        says=("second", "0/3 nodes", "18092"),
    )  # fmt: skip
    assert [one.birth for one in site.of("first")] == before


def test_more_replicas_than_nodes_for_a_fixed_port(site: Site) -> None:
    words = (site.image(), "--name", "many", "--port", "18093:8080", "--replicas", "4")
    refused(site, *words, status=3, says=("4 replicas cannot share node port 18093", "at most 3"))
    assert site.korch.objects("deploy") == []


# --- places ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(("--memory", "64Gi"), r"0/3 nodes: .*lack memory \(64Gi asked\)", id="memory"),
        pytest.param(("--cpu", "99"), r"0/3 nodes: .*lack CPU \(99.* asked\)", id="cpu"),
        pytest.param(("--node-selector", "rack=z"), r"0/3 nodes: .*rack=z", id="selector"),
        pytest.param(("--node-selector", "kubernetes.io/hostname=n3"), r"0/3 nodes: .*taint", id="taint"),
    ],
)
def test_pods_that_fit_nowhere_stay_pending_with_a_sentence(site: Site, words: tuple[str, ...], says: str) -> None:
    run = refused(site, site.image(), "--name", "big", *words, status=9, says=("big", "Pending", "0/3 nodes"))
    assert re.search(says, run.err), run
    assert re.search(says, site.korch("why", "big").out)
    (pod,) = site.korch.objects("pods")
    assert pod["status"]["phase"] == "Pending"
    assert not pod["spec"].get("nodeName")
    # The wish stays on record, and a changed one comes true.
    done = site.korch("deploy", site.image(), "--name", "big", *QUICK)
    assert "big: 1 of 1 replicas run" in done.out


def test_cordoned_nodes_and_limit(site: Site) -> None:
    site.korch("node", "cordon", "n1", "n2")
    try:
        run = refused(site, site.image(), "--name", "where", status=9, says=("0/3 nodes: ", "2 cordoned", "taint"))
        assert "where-" in run.err
        site.korch("node", "uncordon", "n2")
        done = site.korch("sync")
        assert "where: 1 of 1 replicas run" in done.out
        assert [one.node for one in site.of("where")] == ["n2"]
    finally:
        site.korch("node", "uncordon", "n1", "n2")
    limited = site.korch("deploy", site.image(), "--name", "near", "--replicas", "2", "--limit", "n1", *QUICK)
    assert {row[1] for row in limited.rows()} == {"n1"}


def test_selector_and_toleration_choose_the_node(site: Site) -> None:
    app = f"name: fast\nimage: {site.image()}\nreplicas: 2\nconstraints: {{rack: [a]}}\n"
    (site.korch.home / "fast.yml").write_text(app)
    done = site.korch("deploy", "-f", "fast.yml", *QUICK)
    assert {row[1] for row in done.rows()} == {"n1"}
    manifest = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: gpu}}
spec:
  selector: {{matchLabels: {{app: gpu}}}}
  template:
    metadata: {{labels: {{app: gpu}}}}
    spec:
      nodeSelector: {{kubernetes.io/hostname: n3}}
      tolerations: [{{key: gpu, operator: Exists}}]
      containers: [{{name: gpu, image: "{site.image()}"}}]
"""
    site.korch("apply", "-f", "-", stdin=manifest)
    assert [one.node for one in site.of("gpu")] == ["n3"]
