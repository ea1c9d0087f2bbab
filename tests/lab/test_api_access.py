"""Who gets into the API of a real master: the real kubectl with what `korch kubeconfig` made, and without."""

import json
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from korch.lab.machine import CLEAN_ENV
from tests.kubetools import KUBECTL
from tests.lab.faulty import Faulty, wait_for
from tests.lab.korch_cli import KORCH
from tests.lab.mastering import mastered, start_master

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not KUBECTL, reason="there is no kubectl")]


@dataclass(frozen=True)
class Kubectl:
    """The real one, with one kubeconfig."""

    config: Path

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """An ended run."""
        argv = (KUBECTL, "--kubeconfig", str(self.config), *words)
        env = {**CLEAN_ENV, "HOME": str(self.config.parent)}
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, env=env, timeout=120, check=False)

    def __call__(self, *words: str, stdin: str = "") -> str:
        """What a run that must succeed prints."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done
        return done.stdout

    def refused(self, *words: str) -> str:
        """Why a run was refused."""
        done = self.run(*words)
        assert done.returncode != 0, done
        return done.stderr


def let_in(site: Faulty, name: str, *words: str) -> Kubectl:
    """kubectl with a new credential."""
    config = site.korch.cwd / f"{name}.kubeconfig"
    site.korch("kubeconfig", "--name", name, "-o", str(config), *words)
    assert config.stat().st_mode & 0o777 == 0o600
    return Kubectl(config)


def as_account(kubectl: Kubectl) -> Kubectl:
    """The same cluster, as a service account that nobody gave a role."""
    kubectl("create", "serviceaccount", "bot")
    config = yaml.safe_load(kubectl.config.read_text())
    config["users"][0]["user"] = {"token": kubectl("create", "token", "bot").strip()}
    path = kubectl.config.with_suffix(".bot")
    path.write_text(yaml.safe_dump(config))
    assert "forbidden" in Kubectl(path).refused("get", "pods")
    return Kubectl(path)


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def without_credential(kubectl: Kubectl) -> Kubectl:
    """The same cluster, and a user that it does not know."""
    config = yaml.safe_load(kubectl.config.read_text())
    config["users"][0]["user"] = {"token": "korch_000000000000_" + "0" * 64}
    path = kubectl.config.with_suffix(".nobody")
    path.write_text(yaml.safe_dump(config))
    return Kubectl(path)


def test_kubectl_gets_in_by_its_credential_and_role_alone(faulty: Faulty) -> None:
    with mastered(faulty):
        admin = let_in(faulty, "root")
        nodes = admin("get", "nodes").splitlines()
        assert sorted(line.split()[0] for line in nodes[1:]) == sorted(faulty.nodes)
        assert all("Ready" in line for line in nodes[1:])
        assert "logged in" in without_credential(admin).refused("get", "nodes")

        admin("create", "secret", "generic", "gold", "--from-literal=value=hunter2-hunter2")
        assert json.loads(admin("get", "secret", "gold", "-o", "json"))["data"]
        admin("create", "deployment", "web", f"--image={faulty.image()}", "--replicas=2")
        admin("rollout", "status", "deployment/web", "--timeout=90s")

        assert admin("top", "pods").count("web-") == 2
        assert "system:serviceaccount" in as_account(admin)("auth", "whoami")

        viewer = let_in(faulty, "vic", "--role", "view", "-n", "default", "--token")
        assert viewer("get", "pods", "-o", "name").count("pod/web-") == 2
        assert 'User "vic" cannot get resource "secrets"' in viewer.refused("get", "secret", "gold")
        assert 'User "vic" cannot delete' in viewer.refused("delete", "deployment", "web")
        assert "at the cluster scope" in viewer.refused("get", "nodes")
        assert viewer("auth", "can-i", "list", "pods").strip() == "yes"
        assert viewer.run("auth", "can-i", "create", "pods/exec").stdout.strip() == "no"
        assert "vic" in viewer("auth", "whoami")

        id_ = next(one["id"] for one in faulty.korch("token", "list", "-o", "json").data() if one["user"] == "vic")
        faulty.korch("token", "revoke", id_)
        wait_for("the end of a revoked token", lambda: viewer.run("get", "pods").returncode != 0, timeout_s=20)
        assert "logged in" in viewer.refused("get", "pods")
        admin("delete", "deployment", "web")
    folder = faulty.korch.home / "clusters" / faulty.korch.cluster
    state = b"".join(path.read_bytes() for path in folder.glob("state.db*"))
    assert b"aHVudGVyMi1odW50ZXIy" not in state, "the Secret is in the state file as it was given"
    audit = (folder / "audit.log").read_text()
    assert "hunter2" not in audit
    lines = [json.loads(line) for line in audit.splitlines()]
    assert any(one.get("user") == "vic" and one["verb"] == "delete" and one["result"] == 403 for one in lines)


def test_the_api_moves_to_the_next_master_with_its_port(faulty: Faulty) -> None:
    port = str(free_port())
    with mastered(faulty, "--api-port", port) as first:
        admin = let_in(faulty, "root")
        second = start_master(faulty, "--api-port", port)
        second.says("this one serves when it is gone")
        watch = subprocess.Popen(
            (KUBECTL, "--kubeconfig", str(admin.config), "get", "namespaces", "--watch", "-o", "name"),
            stdout=subprocess.PIPE,
            text=True,
            env={**CLEAN_ENV, "HOME": str(admin.config.parent)},
        )
        assert watch.stdout is not None
        assert watch.stdout.readline().strip() == "namespace/default"
        first.send(signal.SIGKILL)
        first.process.wait()
        second.says("API: https://127.0.0.1:" + port)
        second.says("leading cluster")
        assert "namespace/default" in admin("get", "namespaces", "-o", "name")
        watch.kill()
        watch.communicate()
        second.stop()


def test_a_taken_port_is_an_error_that_names_the_option(faulty: Faulty) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        faulty.korch.fails("master", "--api-port", str(port), status=10, says=[str(port)])


def test_the_proxy_is_a_door_for_this_machine(faulty: Faulty) -> None:
    with mastered(faulty):
        proxy = subprocess.Popen(
            (str(KORCH), "proxy", "--port", "0", "--role", "view"),
            stdout=subprocess.PIPE,
            text=True,
            env=faulty.korch.environment(),
            cwd=faulty.korch.cwd,
        )
        try:
            assert proxy.stdout is not None
            url = proxy.stdout.readline().split()[0]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{url}/api/v1/nodes", timeout=20) as answer:
                names = [one["metadata"]["name"] for one in json.load(answer)["items"]]
            assert sorted(names) == sorted(faulty.nodes)
            strange = urllib.request.Request(f"{url}/api/v1/nodes", headers={"Host": "evil.example"})
            with pytest.raises(urllib.error.HTTPError, match="403") as refused:
                opener.open(strange, timeout=20)
            refused.value.close()
        finally:
            proxy.send_signal(signal.SIGTERM)
            proxy.communicate(timeout=20)
        assert not [one for one in faulty.korch("token", "list", "-o", "json").data() if one["user"] == "korch-proxy"]


def test_the_server_shows_a_certificate_of_the_clusters_own_authority(faulty: Faulty) -> None:
    port = free_port()
    with mastered(faulty, "--api-port", str(port)):
        authority = faulty.korch.home / "clusters" / faulty.korch.cluster / "pki" / "ca.crt"
        context = ssl.create_default_context(cafile=str(authority))
        for name in ("localhost", "127.0.0.1", socket.gethostname()):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
                context.wrap_socket(plain, server_hostname=name) as secured,
            ):
                assert secured.version() == "TLSv1.3"
