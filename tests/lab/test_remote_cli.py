"""The command line from a machine that has nothing but a kubeconfig, against a real master and real nodes."""

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.faulty import Faulty, wait_for
from tests.lab.korch_cli import Korch, Run
from tests.lab.mastering import AT_ONCE, mastered, pods, start_master
from tests.lab.test_api_access import free_port, let_in

pytestmark = pytest.mark.faults

LOOKS = [
    ("get", "deploy,rs,pods", "-o", "wide"),
    ("get", "pods", "-o", "json"),
    ("describe", "deploy", "web"),
    ("events", "--for", "deploy/web"),
    ("rollout", "history", "web"),
    ("rollout", "status", "web"),
    ("why", "web"),
    ("logs", "web", "--tail", "1"),
    ("exec", "deploy/web", "--", "sh", "-c", "echo $0 $#; exit 7", "a b", ""),
    ("node", "check", "d1"),
    ("image", "list"),
    ("get", "pod", "nobody"),
]


@pytest.fixture
def far(tmp_path: Path) -> Korch:
    """`korch` elsewhere."""
    home = tmp_path / "elsewhere"
    home.mkdir()
    return Korch(home, cluster="", cwd=home, user_env={"KUBECONFIG": str(home / "config")})


def told(run: Run) -> tuple[int, list[str], str]:
    """What a run says; ages pass, and of two logs either may come first."""
    plain = re.sub(r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b|\d+m(?=\s)", "AGE", run.out)
    return run.status, sorted(re.sub(r" +", " ", plain).splitlines()), run.err


def test_a_deploy_from_elsewhere_and_a_look_from_both_sides(faulty: Faulty, far: Korch) -> None:
    port = str(free_port())
    assert "does not exist" in far("get", "pods", status=4).err
    with mastered(faulty, "--api-port", port) as master:
        let_in(faulty, "ann").config.rename(far.home / "config")
        deployed = far("deploy", faulty.image(), "--name", "web", "--replicas", "3", "--port", "8080", *AT_ONCE)
        assert "following " in deployed.err
        assert [row[2] for row in deployed.rows()] == ["ready"] * 3
        assert sum(one.running for one in faulty.of("web")) == 3
        for words in LOOKS:
            if words[0] == "image":
                assert "not done over the API" in far(*words, status=7).err
                continue
            one, other = far(*words, status=None), faulty.korch(*words, status=None)
            if words[:2] == ("node", "check"):  # figures and witnesses change from one look to the next
                checks = [[line.split()[:2] for line in run.out.splitlines()] for run in (one, other)]
                assert checks[0] == checks[1]
                continue
            assert told(one) == told(other)
        assert sorted(row.split()[0] for row in far("nodes").out.splitlines()[1:5]) == sorted(faulty.nodes)
        assert far("top", "pods").out.count("web-") == 3
        assert "healthy" in far("status", "-o", "json").out
        assert far("whatif", "web", "--replicas", "4").status == 0
        assert "web" in far("plan", faulty.image("2"), "--name", "web", "--replicas", "3").out

        far("scale", "web=2")
        assert sum(one.running for one in faulty.of("web")) == 2
        drained = faulty.of("web")[0].node
        far("node", "drain", drained)
        assert drained not in {one.node for one in faulty.of("web") if one.running}
        assert "uncordoned" in far("node", "uncordon", drained).out

        # The master is killed in the middle of a deploy from elsewhere, and another one takes over at its port
        with faulty.hold("pull", *faulty.nodes) as holds:
            going = faulty.start("deploy", faulty.image("2"), "--name", "web", *AT_ONCE, "--timeout", "150", korch=far)
            wait_for("a pull", lambda: any(hold.is_held for hold in holds))
            master.send(signal.SIGKILL)
            master.process.wait()
        start_master(faulty, "--api-port", port)
        out, err = going.communicate(timeout=170)
        assert going.returncode == 0, out + err
        assert {pod["spec"]["containers"][0]["image"] for pod in pods(faulty, "web")} == {faulty.image("2")}
        assert far("delete", "web").status == 0
        assert not faulty.of("web")


def test_a_role_holds_for_the_command_line_too(faulty: Faulty, far: Korch) -> None:
    with mastered(faulty):
        let_in(faulty, "vera", "--role", "view").config.rename(far.home / "config")
        assert far("get", "nodes").status == 0
        assert far("nodes").status == 0
        for words in (("deploy", faulty.image(), "--name", "web"), ("node", "cordon", "d1"), ("prune",)):
            assert "forbidden" in far(*words, status=7).err
        named = replace(far, user_env={"KORCH_CONTEXT": "nobody", **far.user_env})
        assert 'there is no context "nobody"' in named("get", "pods", status=4).err
