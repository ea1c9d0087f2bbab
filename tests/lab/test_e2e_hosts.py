"""Hosts as people have them: wrong keys, missing rights, engines that are down, strange shells, machines of others.

One trouble on n1 never keeps n2 and n3 from working; each is told apart, with its cause and the next step.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from korch.lab.lab import Lab
from tests.lab.conftest import node_host, wiped
from tests.lab.korch_cli import Korch, Run, Site, make_site, write_inventory

QUICK = ("--settle", "0")
SHELLS = [path for name in ("dash", "tcsh", "fish", "zsh", "ksh") if (path := shutil.which(name, path="/bin:/usr/bin"))]


@pytest.fixture(scope="module", params=["docker", "podman"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab: Lab = request.getfixturevalue(f"{request.param}_lab")
    home = tmp_path_factory.mktemp("hosts")
    made = make_site(wiped(lab), home, inventory=str(home / "hosts.yml"))
    before = foreign(made)
    hosts(made)
    yield made
    hosts(made)
    made.clear()
    assert foreign(made) == before


def foreign(site: Site) -> dict[str, str]:
    """Somebody else's things, but for the time of the start: an engine that is killed starts its containers again."""
    return {node: re.sub(r"\S+Z |\+0000 UTC ", "", text) for node, text in site.foreign().items()}


@pytest.fixture(autouse=True)
def everything_back(site: Site) -> Iterator[None]:
    """After each test: the ordinary inventory, and no app."""
    yield
    hosts(site)
    if site.korch.objects("deploy", all_namespaces=True):
        site.clear()


def hosts(site: Site, **changes: dict[str, object]) -> None:
    """The inventory with n1, n2 and n3; `changes` are further variables of some, or hosts beside them."""
    entries: dict[str, dict[str, object]] = {name: {} for name in site.nodes}
    write_inventory(Path(site.korch.inventory), site.lab, entries | changes)


def ssh_args(known_hosts: Path | str) -> str:
    return f"-o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes"


def state(run: Run, node: str) -> str:
    """The second column of `korch nodes`."""
    (line,) = [line for line in run.out.splitlines() if re.match(rf"{node}\s", line)]
    return line.split()[1]


def only_there(site: Site, node: str, name: str = "stuck", status: int = 9) -> Run:
    """A deploy that may go to one node only, and fails."""
    words = ("deploy", site.image(), "--name", name, "--limit", node, *QUICK)
    return site.korch.fails(*words, status=status)


def elsewhere(site: Site, *nodes: str) -> None:
    """An app with a replica a node comes up on these."""
    count = str(len(nodes))
    done = site.korch("deploy", site.image(), "--name", "well", "--port", "18100:8080", "--replicas", count, *QUICK)
    assert sorted(row[1] for row in done.rows()) == sorted(nodes)


# --- reaching a host ---


def wrong_key(site: Site) -> dict[str, object]:
    path = site.korch.home / "another_key"
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return {"ansible_ssh_private_key_file": str(path)}


def changed_key(site: Site) -> dict[str, object]:
    """A known_hosts file in which n1 has the keys of n2."""
    lines = site.lab.known_hosts.read_text().splitlines()
    own, other = site.lab.address("n1"), site.lab.address("n2")
    path = site.korch.home / "changed_known_hosts"
    path.write_text("".join(f"{line.replace(other, own)}\n" for line in lines if line.startswith(f"{other} ")))
    return {"ansible_ssh_common_args": ssh_args(path)}


REACHING: dict[str, tuple[Callable[[Site], dict[str, object]], str, tuple[str, ...]]] = {
    "wrong key": (wrong_key, "AuthFailed", ("root@", "does not accept korch", "another_key", "Check: ssh root@")),
    "unknown user": (lambda site: {"ansible_user": "ghost"}, "AuthFailed", ("ghost@", "Check: ssh ghost@")),
    "unknown host key": (
        lambda site: {"ansible_ssh_common_args": ssh_args("/dev/null")},
        "HostKeyUnknown",
        ("the host key is not known", "SHA256:", "korch node trust n1"),
    ),
    "changed host key": (
        changed_key,
        "HostKeyChanged",
        ("the host key changed", "changed_known_hosts:", "SHA256:", "korch node trust n1"),
    ),
    "nobody listens": (lambda site: {"ansible_port": 1}, "Unreachable", ("port 1", "refused", "no sshd listens")),
    "other engine": (
        lambda site: {"korch_engine": {"docker": "podman", "podman": "docker"}[site.engine("n1")]},
        "EngineMissing",
        ("is installed", "korch node prepare"),
    ),
    "no rights": (
        lambda site: {"ansible_user": "lab", "ansible_become": False},
        "NoPermission",
        ("sudo", "ansible_become: true"),
    ),
}


@pytest.mark.parametrize("trouble", REACHING)
def test_trouble_with_one_host_is_told_apart(site: Site, trouble: str) -> None:
    change, name, says = REACHING[trouble]
    hosts(site, n1=change(site))
    shown = site.korch("nodes")
    assert [state(shown, node) for node in site.nodes] == [name, "Ready", "Ready"]
    about = shown.all.partition("\nn1: ")[2]
    for text in says:
        assert text in about, shown
    if trouble in {"wrong key", "no rights"}:  # one of SSH, one of the engine: a deploy tells all states alike
        run = only_there(site, "n1")
        assert "0/3 nodes: 2 left out by --limit, 1 " in run.err, run
        assert "n1: " in run.err, run
        assert site.containers() == []


def test_trouble_with_one_host_keeps_nobody_else_from_working(site: Site) -> None:
    hosts(site, n1=wrong_key(site))
    elsewhere(site, "n2", "n3")
    assert {one.node for one in site.containers()} == {"n2", "n3"}
    hosts(site)
    assert state(site.korch("nodes"), "n1") == "Ready"
    assert "nothing to change" in site.korch("sync").out


def test_trust_accepts_the_key_that_was_looked_at(site: Site) -> None:
    hosts(site, n1={"ansible_ssh_common_args": ssh_args("/dev/null")})
    shown = site.korch("nodes")
    found = re.search(r"SHA256:[A-Za-z0-9+/]{43}", shown.all)
    assert found is not None
    keys = site.shell("n1", "for f in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $f; done")
    assert found[0] in keys  # what the message shows is what the machine has
    site.korch("node", "trust", "n1", status=2)  # nobody to ask
    wrong = "SHA256:" + "A" * 43
    site.korch.fails("node", "trust", "n1", "--fingerprint", wrong, status=7, says=(found[0], wrong))
    assert state(site.korch("nodes"), "n1") == "HostKeyUnknown"
    site.korch("node", "trust", "n1", "--fingerprint", found[0])
    assert state(site.korch("nodes"), "n1") == "Ready"
    # The accepted key is the only one: another one is refused again, and trusted again only on request.
    known = site.korch.home / "clusters" / "e2e" / "known_hosts"
    other = next(line for line in site.lab.known_hosts.read_text().splitlines() if site.lab.address("n2") in line)
    known.write_text(other.replace(site.lab.address("n2"), site.lab.address("n1")) + "\n")
    assert state(site.korch("nodes"), "n1") == "HostKeyChanged"
    site.korch("node", "trust", "n1", "--yes")
    assert state(site.korch("nodes"), "n1") == "Ready"
    known.unlink()
    assert state(site.korch("nodes", "--host-key", "accept-new"), "n1") == "Ready"
    assert state(site.korch("nodes"), "n1") == "Ready"
    known.unlink()


# --- rights, engines ---


def test_ordinary_user_works_through_sudo(site: Site) -> None:
    hosts(site, **{node: {"ansible_user": "lab"} for node in ("n1", "n2")})  # a machine with busybox has only root
    secrets = site.korch.home / "sudo.env"
    secrets.write_text('WORD="two\nlines"\n')
    words = ("deploy", site.image(), "--name", "sudo", "--port", "18101:8080", "--replicas", "3", *QUICK)
    done = site.korch(*words, "--env-file", str(secrets), "--health", "/healthz")
    assert sorted(row[1] for row in done.rows()) == list(site.nodes)
    found = site.of("sudo")
    assert {one.env["WORD"] for one in found} == {"two\nlines"}
    assert {one.running for one in found} == {True}
    for row in done.rows():
        assert site.page(row[3]) == f"web version 1 on {row[0]}"
    pod = done.rows()[0][0]
    assert site.korch("exec", pod, "--", "sh", "-c", "echo $WORD; exit 3", status=3).out == "two lines\n"
    assert "listens on port" in site.korch("logs", "sudo").out
    site.korch("delete", "sudo")
    assert site.of("sudo") == []


def test_user_without_sudo_gets_no_further(site: Site) -> None:
    hosts(site, n1={"ansible_user": "lab"})
    site.shell("n1", "mv /etc/sudoers.d/lab /root/sudoers-lab")
    try:
        shown = site.korch("nodes")
        assert state(shown, "n1") == "NoPermission"
        assert "sudo" in shown.all
        run = only_there(site, "n1")
        assert "does not let korch use its container engine" in run.err
        check = site.korch("node", "check", "n1", "--problems", status=8)
        assert "sudo" in check.out
    finally:
        site.shell("n1", "mv /root/sudoers-lab /etc/sudoers.d/lab")


def test_engine_that_is_stopped(site: Site) -> None:
    if site.engine("n1") == "podman":
        pytest.skip("Podman has no daemon that could be down")
    elsewhere(site, "n1", "n2", "n3")
    before = {one.birth for one in site.of("well")}
    site.lab.stop_engine("n1", hard=True)
    try:
        shown = site.korch("nodes")
        assert state(shown, "n1") == "EngineDown"
        assert "docker" in shown.all.lower()
        run = only_there(site, "n1")
        assert "has a container engine that does not answer" in run.err
    finally:
        site.lab.start_engine("n1")
    assert state(site.korch("nodes"), "n1") == "Ready"
    site.korch("delete", "stuck")
    assert "3 of 3 replicas run" in site.korch("sync").out
    assert {one.id for one in site.of("well")} == {container for container, _ in before}


# --- whose machine it is ---


def test_machines_of_another_cluster_are_left_alone(site: Site, tmp_path: Path) -> None:
    hosts(site)
    elsewhere(site, "n1", "n2", "n3")
    before = {one.birth for one in site.of("well")}
    other = replace(site.korch, home=tmp_path, cluster="second", cwd=tmp_path)
    shown = other("nodes")
    assert {state(shown, node) for node in site.nodes} == {"ClaimedByOther"}
    words = ("deploy", site.image(), "--name", "mine", *QUICK)
    run = other.fails(*words, status=7, says=('the korch cluster "e2e"', "whose master lives on", "korch_shared"))
    assert re.search(r"^Error: n[123] belongs", run.err, re.MULTILINE), run
    assert {one.birth for one in site.containers()} == before
    # Where sharing is allowed both work, and neither touches what the other one has.
    path = tmp_path / "shared.yml"
    write_inventory(path, site.lab, {node: {"korch_shared": True} for node in site.nodes})
    other("cluster", "set-inventory", "-i", str(path))
    other = replace(other, inventory=str(path))
    other(*words)
    (mine,) = [one for one in site.containers() if one.app == "mine"]
    assert mine.labels["korch.dev/cluster"] != site.of("well")[0].labels["korch.dev/cluster"]
    assert "nothing to change" in site.korch("sync").out
    other.fails("cluster", "rm", "--yes", status=7, says=("mine",))
    other("delete", "mine")
    other("cluster", "rm", "--yes")
    assert {one.birth for one in site.containers()} == before
    assert "second" not in site.shell("n1", "cat /var/lib/korch/claims/*")


def test_two_names_for_one_machine(site: Site) -> None:
    second = f"{site.lab.address('n1').rsplit('.', 1)[0]}.250"
    known = site.korch.home / "two_names"
    lines = site.lab.known_hosts.read_text()
    known.write_text(lines + lines.replace(f"{site.lab.address('n1')} ", f"{second} "))
    own = site.lab.address("n1")
    site.shell("n1", f"ip addr add {second}/24 dev eth0")
    try:
        hosts(site, also={"node": "n1", "ansible_host": second, "ansible_ssh_common_args": ssh_args(known)})
        run = site.korch.fails("nodes", status=3, says=('"also"', '"n1"', "the same machine", "claim file"))
        assert "Keep one of the two names" in run.err
        hosts(site, also={"ansible_host": own, "node": "n1"})
        site.korch.fails("nodes", status=3, says=('"also"', '"n1"', "hosts.yml:"))
    finally:
        site.shell("n1", f"ip addr del {second}/24 dev eth0")


def test_another_inventory_for_the_same_cluster(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "others.yml"
    write_inventory(path, site.lab, {"n1": {}})
    run = site.korch.fails("nodes", "-i", str(path), status=7, says=(str(path), site.korch.inventory))
    assert f"korch cluster set-inventory -i {path}" in run.err
    assert "--cluster NAME" in run.err
    bare: Korch = replace(site.korch, inventory="")  # the recorded one is used when none is named
    assert state(bare("nodes"), "n3") == "Ready"


def test_host_that_left_the_inventory_keeps_its_pods_until_it_is_removed(site: Site) -> None:
    hosts(site)
    elsewhere(site, "n1", "n2", "n3")
    before = {one.birth for one in site.of("well")}
    write_inventory(Path(site.korch.inventory), site.lab, {"n1": {}, "n2": {}})
    shown = site.korch("nodes")
    assert state(shown, "n3") == "NotInInventory"
    assert {one.birth for one in site.of("well")} == before
    site.korch("deploy", site.image(), "--name", "fresh", "--replicas", "4", *QUICK)
    assert {one.node for one in site.of("fresh")} <= {"n1", "n2"}
    site.korch.fails("node", "rm", "n3", status=7, says=("n3 still has 1 pod", "well-", "--force"))
    site.korch.fails("node", "rm", "n1", status=7, says=("n1 is still in the inventory",))
    hosts(site)  # it is back, and with it its pod
    assert state(site.korch("nodes"), "n3") == "Ready"
    assert {one.birth for one in site.of("well")} == before


# --- login shells ---


@pytest.mark.parametrize("shell", [*SHELLS, "/opt/busybox/sh"], ids=lambda path: Path(path).name)
def test_login_shell_of_the_user(site: Site, shell: str) -> None:
    if shell == "/opt/busybox/sh":
        site.shell("n1", "mkdir -p /opt/busybox && ln -sf $(command -v busybox) /opt/busybox/sh")
    hosts(site, n1={"ansible_user": "lab"})
    site.lab.set_shell("n1", "lab", shell)
    try:
        assert node_host(site.lab, "n1").check_output("getent passwd lab").endswith(f":{shell}")
        value = 'it\'s "$(id)" `id` \\ ! # % * ? ~ {a,b} ; | & ü\nline'
        words = ("deploy", site.image(), "--name", "shell", "--limit", "n1", "--port", "8080", *QUICK)
        done = site.korch(*words, "--env", f"VALUE={value}", "--health", "/healthz")
        assert [row[1:3] for row in done.rows()] == [["n1", "ready"]]
        (found,) = site.of("shell")
        assert found.env["VALUE"] == value
        said = site.korch("exec", done.rows()[0][0], "--", "printf", "%s|", value, "a b", "")
        assert said.out == f"{value}|a b||"
    finally:
        site.lab.set_shell("n1", "lab", "/bin/bash")


NOISE = """
i=0
while [ $i -lt 1000 ]; do i=$((i + 1)); echo "@korch begin: welcome, line $i of 1000"; done
echo "and a thousand thanks" >&2
sleep 0.3
"""


def test_banner_of_a_thousand_lines_and_a_slow_login_shell(site: Site) -> None:
    site.lab.write_file("n1", "/etc/ssh/banner", "".join(f"line {number} of the banner\n" for number in range(1000)))
    site.shell(
        "n1",
        "cp /root/.bashrc /root/.bashrc.before 2>/dev/null; sed -i '1i Banner /etc/ssh/banner' /etc/ssh/sshd_config",
    )
    site.lab.write_file("n1", "/root/.bashrc", NOISE)
    site.shell("n1", "kill -HUP $(cat /run/sshd.pid)")
    try:
        words = ("deploy", site.image(), "--name", "noisy", "--limit", "n1", "--port", "8080", *QUICK)
        done = site.korch(*words, "--health", "/healthz")
        assert "noisy: 1 of 1 replicas run" in done.out
        assert "welcome" not in done.all
        assert site.page(done.rows()[0][3]).startswith("web version 1")
        assert "nothing to change" in site.korch(*words, "--health", "/healthz").out
    finally:
        site.shell(
            "n1",
            "sed -i 1d /etc/ssh/sshd_config; mv -f /root/.bashrc.before /root/.bashrc; kill -HUP $(cat /run/sshd.pid)",
        )
