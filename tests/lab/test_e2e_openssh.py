"""The main job over the installed `ssh` (`korch_transport: openssh`): a node does not notice the difference."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from korch.lab.lab import Lab
from korch.lab.spec import node_specs
from tests.lab.conftest import wiped
from tests.lab.korch_cli import Run, Site, make_site, process_words, write_inventory

QUICK = ("--settle", "0")


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One Docker node, n1."""
    lab = make_lab("ossh", node_specs(nodes=1, engine="docker"))
    home = tmp_path_factory.mktemp("openssh")
    return make_site(wiped(lab), home, inventory=str(home / "hosts.yml"))


@pytest.fixture(autouse=True)
def no_ssh_is_left(site: Site) -> Iterator[None]:
    """After each test: somebody else's container as before, no `ssh` to the node, no folder for one."""
    before = site.foreign()
    yield
    assert site.foreign() == before
    assert str(site.korch.home / "run") not in process_words()
    assert list((site.korch.home / "run").glob("*")) == []


def host(site: Site, **variables: object) -> None:
    """The inventory: n1 with these variables."""
    write_inventory(Path(site.korch.inventory), site.lab, {"n1": {"korch_transport": "openssh", **variables}})


def state(run: Run) -> str:
    """What `korch nodes` says of n1."""
    (line,) = [line for line in run.out.splitlines() if line.startswith("n1 ")]
    return line.split()[1]


@pytest.mark.parametrize("user", ["root", "lab"])
def test_deploy_look_and_delete(site: Site, user: str) -> None:
    host(site, ansible_user=user)
    (site.korch.home / "app.env").write_text('WORD="two\nlines"\n')
    port = ("--port", "18110:8080", "--health", "/healthz", "--env-file", str(site.korch.home / "app.env"))
    done = site.korch("deploy", site.image(), "--name", "web", *port, *QUICK)
    (found,) = site.of("web")
    assert found.running
    assert found.env["WORD"] == "two\nlines"
    ((pod, node, _, url),) = done.rows()
    assert node == "n1"
    assert site.page(url) == f"web version 1 on {pod}"
    assert site.korch("exec", "-i", pod, "--", "sh", "-c", "cat; exit 3", status=3, stdin="in\n").out == "in\n"
    assert "listens on port" in site.korch("logs", "web").out
    site.korch("deploy", site.image("2"), "--name", "web", *port, *QUICK)
    assert "web version 2" in site.page(url)
    log = site.shell("n1", "ps -eo args | grep -c '[s]shd: .*notty' || true")
    assert int(log) == 0  # every connection of korch has ended there, too
    site.clear()


def test_each_refusal_is_a_state(site: Site) -> None:
    known = site.korch.home / "known"
    keys = [line.split(" ", 1)[1] for line in site.lab.known_hosts.read_text().splitlines()]
    common = "-o IdentitiesOnly=yes -o UserKnownHostsFile="
    known.write_text("".join(f"@revoked * {key}\n" for key in keys))
    for transport in ("openssh", "fabric"):
        host(site, ansible_ssh_common_args=common + str(known), korch_transport=transport)
        shown = site.korch("nodes")
        assert state(shown) == "HostKeyRevoked", shown
        assert "is revoked" in shown.all
    host(site, ansible_ssh_common_args=f"{common}{site.lab.known_hosts} -o Ciphers=3des-cbc")
    shown = site.korch("nodes")
    assert state(shown) == "NoCommonAlgorithm", shown
    assert "share no cipher" in shown.all
    host(site, ansible_ssh_common_args=common + "/dev/null")
    shown = site.korch("nodes")
    assert state(shown) == "HostKeyUnknown"
    assert "SHA256:" in shown.all
    host(site, ansible_port=1)
    assert state(site.korch("nodes")) == "Unreachable"
    host(site, ansible_user="ghost")
    assert state(site.korch("nodes")) == "AuthFailed"
    host(site)
    assert state(site.korch("nodes")) == "Ready"


def test_a_key_is_trusted_over_ssh_alone(site: Site) -> None:
    host(site, ansible_ssh_common_args="-o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null")
    site.korch("node", "trust", "n1", "--yes")
    assert state(site.korch("nodes")) == "Ready"
