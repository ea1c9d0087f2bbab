"""Labs for the tests: real SSH hosts of each engine, brought up once a session, wiped for each test that asks.

A lab's name holds the pid of the test run, so that runs side by side do not meet, and the next run removes what a
killed one left behind.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

from korch.errors import SetupError
from korch.lab import machine
from korch.lab.lab import Lab
from korch.lab.record import OWNERS
from korch.lab.spec import NodeSpec, node_specs

if TYPE_CHECKING:
    from tests.lab.faulty import Faulty

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("lab")


def node_host(lab: Lab, node: str, user: str = "root") -> Host:
    """The node as testinfra sees it over SSH, with `sudo` for another user than root."""
    return testinfra.get_host(
        f"ssh://{user}@{lab.address(node)}",
        ssh_identity_file=str(lab.ssh_key),
        ssh_extra_args=f"-F /dev/null -o UserKnownHostsFile={lab.known_hosts} -o IdentitiesOnly=yes -o LogLevel=ERROR",
        controlpersist=0,
        sudo=user != "root",
    )


def ssh(
    lab: Lab, node: str, script: str, *, user: str = "root", timeout_s: int = 3
) -> subprocess.CompletedProcess[str]:
    """Run a shell line on the node through OpenSSH; `returncode` 255 when there is no connection."""
    options = ("-F", "/dev/null", "-i", str(lab.ssh_key), "-o", f"UserKnownHostsFile={lab.known_hosts}")
    quiet = (
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
        "-o",
        f"ConnectTimeout={timeout_s}",
    )
    words = ("ssh", "-n", *options, *quiet, f"{user}@{lab.address(node)}", script)
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Lab]]:
    """A function (name, specs) that brings a lab up; all of them go at the end of the session."""
    try:
        machine.require(("docker", "podman"))
    except SetupError as error:
        pytest.skip(f"{error}. {error.hint}")
    _remove_leftovers()
    home = tmp_path_factory.mktemp("korch-home")
    made: list[Lab] = []

    def make(name: str, specs: tuple[NodeSpec, ...]) -> Lab:
        lab = Lab(f"t{os.getpid()}-{name}", home)
        made.append(lab)
        lab.up(specs)
        return lab

    yield make
    for lab in made:
        lab.down()


def three(engine: str) -> tuple[NodeSpec, ...]:
    """The usual nodes; n3 has nothing on its PATH but busybox and the engine's command, so that all runs there, too."""
    *usual, last = node_specs(nodes=3, engine=engine)
    return (*usual, replace(last, busybox=True))


@pytest.fixture(scope="session")
def docker_lab(make_lab: Callable[..., Lab]) -> Lab:
    """n1, n2, n3 with Docker. As the tests before left them: `clean_docker_lab` has them empty."""
    return make_lab("docker", three("docker"))


@pytest.fixture(scope="session")
def podman_lab(make_lab: Callable[..., Lab]) -> Lab:
    """n1, n2, n3 with Podman."""
    return make_lab("podman", three("podman"))


@pytest.fixture(scope="session")
def bare_lab(make_lab: Callable[..., Lab]) -> Lab:
    """Nodes with busybox and the engine's command only: d1 with Docker, p1 with Podman."""
    return make_lab("bare", (NodeSpec("d1", busybox=True), NodeSpec("p1", engine="podman", busybox=True)))


@pytest.fixture(scope="session")
def mixed_lab(make_lab: Callable[..., Lab]) -> Lab:
    """d1 and d2 with Docker, p1 and p2 with Podman: for faults, whose waiting then serves both engines."""
    from tests.lab.faulty import SPECS

    return make_lab("mixed", SPECS)


@pytest.fixture
def faulty(mixed_lab: Lab, tmp_path: Path) -> "Iterator[Faulty]":
    """The four nodes, clean, with somebody else's container on each, which must be untouched at the end."""
    from tests.lab.faulty import make_faulty

    site = make_faulty(mixed_lab, tmp_path)
    before = site.theirs()
    try:
        yield site
    finally:
        site.end_started()
    site.mend()
    assert site.theirs() == before


@pytest.fixture(autouse=True)
def _fresh_start(request: pytest.FixtureRequest) -> None:
    """A test's second chance does not begin with what its first attempt left in a cluster that tests share."""
    if getattr(request.node, "execution_count", 1) > 1 and "site" in request.fixturenames:
        clear = getattr(request.getfixturevalue("site"), "clear", None)
        if clear is not None:
            clear()


@pytest.fixture
def clean_docker_lab(docker_lab: Lab) -> Lab:
    """`docker_lab`, every node up, without faults, containers and korch's records."""
    return wiped(docker_lab)


@pytest.fixture
def clean_podman_lab(podman_lab: Lab) -> Lab:
    """`podman_lab`, every node up, without faults, containers and korch's records."""
    return wiped(podman_lab)


@pytest.fixture(params=["docker", "podman"])
def lab(request: pytest.FixtureRequest) -> Lab:
    """Three clean nodes, n1 to n3; the test runs once with Docker and once with Podman."""
    return wiped(request.getfixturevalue(f"{request.param}_lab"))


def wiped(lab: Lab) -> Lab:
    """The lab with every node running and empty. Changes under /etc stay: `lab.rebuild(node)` undoes those."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lab.wipe, [node.name for node in lab.status().nodes]))
    return lab


def _remove_leftovers() -> None:
    """Labs of test runs that are no more."""
    for path in OWNERS.glob("t*-*"):
        match = re.fullmatch(r"t(\d+)-.*", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            Lab(path.name, Path(path.read_text().strip()).parent.parent).down()
