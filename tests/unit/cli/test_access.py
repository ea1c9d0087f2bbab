"""`korch kubeconfig` and `korch token` on a cluster of their own, without a master."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from korch.cli.main import cli

Call = Callable[..., Result]


@pytest.fixture
def korch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the program; its home, its cluster and kubectl's file are the test's own."""
    monkeypatch.setenv("KORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for name in ("KORCH_CLUSTER", "KORCH_INVENTORY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hosts.yml").write_text("all: {hosts: {n1: {}}}")

    def call(*words: str, first: bool = False, **more: object) -> Result:
        given = ("-i", str(tmp_path / "hosts.yml")) if first else ()
        return CliRunner().invoke(cli, [*given, *words], **more)  # type: ignore[arg-type]

    return call


def ids(korch: Call) -> list[str]:
    return [one["id"] for one in json.loads(korch("token", "list", "-o", "json").stdout)]


def test_the_file_that_kubectl_reads_is_filled_and_the_credential_is_listed(korch: Call, tmp_path: Path) -> None:
    done = korch("kubeconfig", "--name", "ann", first=True)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{tmp_path}/config: context korch-default is current now: ann, admin, until ")
    assert "no master has served" in done.stderr
    config = yaml.safe_load((tmp_path / "config").read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    rows = korch("token", "list").stdout.splitlines()
    assert rows[0].split() == ["ID", "KIND", "USER", "ROLE", "AGE", "EXPIRES"]
    assert rows[1].split()[1:4] == ["certificate", "ann", "admin"]


def test_a_token_for_the_terminal(korch: Call) -> None:
    done = korch("kubeconfig", "--role", "view", "-n", "shop", "--token", "-o", "-", first=True)
    config = yaml.safe_load(done.stdout)
    assert config["users"][0]["user"]["token"].startswith("korch_")
    assert config["contexts"][0] == {
        "name": "korch-default-view-shop",
        "context": {"cluster": "korch-default-view-shop", "user": "korch-default-view-shop", "namespace": "shop"},
    }


def test_a_credential_for_rolebindings(korch: Call, tmp_path: Path) -> None:
    words = ("--role", "none", "--name", "jane", "--group", "dev", "--group", "ops")
    done = korch("kubeconfig", *words, first=True)
    assert "is current now: jane, group dev, group ops, until" in done.stdout
    (one,) = json.loads(korch("token", "list", "-o", "json").stdout)
    assert one["groups"] == ["dev", "ops"]
    assert korch("kubeconfig", "--group", "system:masters").exit_code == 3
    assert len(ids(korch)) == 1


def test_a_context_of_another_cluster_is_kept_and_no_credential_is_left(korch: Call, tmp_path: Path) -> None:
    theirs = {"clusters": [{"name": "korch-default", "cluster": {"server": "https://other"}}]}
    (tmp_path / "config").write_text(yaml.safe_dump(theirs))
    done = korch("kubeconfig", first=True)
    assert done.exit_code == 5
    assert "--context" in done.stderr
    assert yaml.safe_load((tmp_path / "config").read_text()) == theirs
    assert korch("token", "list").stdout == ""
    assert korch("kubeconfig", "--context", "mine").exit_code == 0
    assert korch("kubeconfig", "--force").exit_code == 0
    assert len(ids(korch)) == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--ttl", "5s"), 3),
        (("--ttl", "soon"), 2),
        (("--role", "root"), 2),
        (("--name", "system:admin"), 3),
        (("-n", "Shop"), 3),
        (("--server", "http://x"), 3),
    ],
)
def test_what_cannot_be_made_leaves_nothing(korch: Call, tmp_path: Path, words: tuple[str, ...], status: int) -> None:
    done = korch("kubeconfig", *words, first=True)
    assert done.exit_code == status
    assert not (tmp_path / "config").exists()


def test_a_file_that_is_no_kubeconfig_costs_no_credential(korch: Call, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[]")
    assert korch("kubeconfig", first=True).exit_code == 3
    (tmp_path / "config").unlink()
    assert korch("kubeconfig", first=True).exit_code == 0
    assert len(ids(korch)) == 1


def test_revoking(korch: Call) -> None:
    for name in ("ann", "ann", "bob"):
        korch("kubeconfig", "--name", name, "-o", "-", first=True)
    first, *_ = ids(korch)
    assert korch("token", "revoke").exit_code == 2
    assert korch("token", "revoke", first, "nope").exit_code == 4
    assert len(ids(korch)) == 2
    assert korch("token", "revoke", "--user", "eve").exit_code == 2
    assert korch("token", "revoke", "--user", "ann").exit_code == 2  # there is no terminal to ask on
    done = korch("token", "revoke", "--user", "ann", "--yes")
    assert (done.exit_code, done.stdout.count(" of ann revoked")) == (0, 1)
    assert len(ids(korch)) == 1


def test_without_a_cluster(korch: Call) -> None:
    for words in (("kubeconfig",), ("token", "list"), ("proxy",), ("cluster", "rotate-key")):
        done = korch(*words)
        assert done.exit_code == 4
        assert "does not exist" in done.stderr


def test_a_proxy_without_a_master_leaves_no_token(korch: Call) -> None:
    korch("kubeconfig", first=True)
    done = korch("proxy", "--server", "https://127.0.0.1:1")
    assert done.exit_code == 6
    assert "korch master" in done.stderr
    assert len(ids(korch)) == 1


def test_rotating_the_key_of_no_secrets(korch: Call, tmp_path: Path) -> None:
    korch("kubeconfig", first=True)
    for more in ((), ("--forget-old", "--yes")):
        done = korch("cluster", "rotate-key", *more)
        assert (done.exit_code, "0 Secrets" in done.stdout) == (0, True)
    assert len(json.loads((tmp_path / "home/clusters/default/secrets.key").read_text())["keys"]) == 1
