"""`korch node prepare`: the call of ansible-playbook, and what is said when it cannot be made."""

import json
import stat
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from korch.cli.node_prepare import Wish, ansible_hosts, find_playbook, prepare, prepare_argv, prepare_nodes
from korch.errors import CommandFailedError, InvalidError, NotFoundError, SetupError
from korch.inventory import Host, load_inventory
from korch.settings import Settings


def test_words_of_the_call() -> None:
    wish = Wish(("a", "b"), {"a": "ann"}, engine="podman", login="root", firewall=True, check=True, more=("-K",))
    argv = prepare_argv(
        "/v/ansible-playbook", Path("/p.yml"), [Path("/i.yml"), Path("/j")], wish, Path("/k/known_hosts")
    )
    assert argv[:7] == ["/v/ansible-playbook", "-i", "/i.yml", "-i", "/j", "--limit", "a,b"]
    assert argv[7].startswith("--ssh-extra-args=-o GlobalKnownHostsFile=")
    assert "/k/known_hosts" in argv[7]
    assert json.loads(argv[9]) == {
        "ansible_user": "root",
        "prepare_engine": "podman",
        "prepare_firewall": True,
        "prepare_users": {"a": "ann"},
    }
    assert argv[10:] == ["--check", "--diff", "-K", "/p.yml"]


def test_defaults_are_left_to_the_playbook() -> None:
    argv = prepare_argv("p", Path("/p.yml"), [], Wish(("a",), {}), Path("/k"))
    assert json.loads(argv[argv.index("--extra-vars") + 1]) == {"prepare_users": {}}
    assert "--check" not in argv


def test_written_inventory_says_what_korch_knows(tmp_path: Path) -> None:
    host = Host(
        "n1", "127.0.0.1", 2222, "vagrant", "/my key", ("-o", "ProxyCommand=ssh -W %h:%p jump"), engine="podman"
    )
    (tmp_path / "hosts.json").write_text(ansible_hosts([host, Host("n2", "n2")]))
    again = load_inventory([str(tmp_path / "hosts.json")], home=tmp_path)
    read = again.host("n1")
    assert (read.address, read.port, read.user, read.identity_file) == ("127.0.0.1", 2222, "vagrant", "/my key")
    assert read.ssh_args == host.ssh_args
    assert again.host("n2").port is None


@pytest.mark.parametrize("name", ["prepare", "reset"])
def test_playbooks_are_found_and_say_all_their_variables(name: str) -> None:
    playbook = find_playbook(f"{name}.yml")
    defaults = yaml.safe_load((playbook.parent / "roles" / name / "defaults" / "main.yml").read_text())
    shown = {line.split()[1] for line in playbook.read_text().splitlines() if line.startswith(f"#   {name}_")}
    assert shown <= set(defaults)
    assert yaml.safe_load(playbook.read_text())[0]["roles"] == [name]


def test_playbook_that_is_not_installed() -> None:
    with pytest.raises(SetupError, match="is not installed with korch"):
        find_playbook("nothing.yml")


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ansible-playbook that writes down its words and its first inventory, and ends with the status in `status`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "status").write_text("0")
    program = tmp_path / "bin" / "ansible-playbook"
    program.write_text(
        f"""#!/bin/sh
for word; do printf '%s\\n' "$word"; done > {tmp_path}/words
cat "$2" > {tmp_path}/seen
exit $(cat {tmp_path}/status)
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    for name in ("KORCH_INVENTORY", "KORCH_CLUSTER", "KORCH_HOST_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KORCH_HOME", str(tmp_path / "home"))
    return tmp_path


def settings(folder: Path) -> Settings:
    return Settings(folder / "home", "default")


def test_ansible_sources_are_passed_on(stub: Path) -> None:
    (stub / "hosts.yml").write_text("web: {hosts: {Web_1: {ansible_user: ann}, other: }}")
    prepare_nodes([str(stub / "hosts.yml")], ["web-1"], settings(stub), Wish((), {}))
    words = (stub / "words").read_text().splitlines()
    assert words[:4] == ["-i", str(stub / "hosts.yml"), "--limit", "Web_1"]
    assert '{"prepare_users": {"Web_1": "ann"}}' in words
    assert words[-1].endswith("playbooks/prepare.yml")


def test_hosts_of_a_list_are_written_down(stub: Path) -> None:
    prepare_nodes(["ann@web1:2222,web2"], ["web1"], settings(stub), Wish((), {}))
    seen = json.loads((stub / "seen").read_text())
    assert seen["all"]["hosts"] == {"web1": {"ansible_host": "web1", "ansible_port": 2222, "ansible_user": "ann"}}
    assert not Path((stub / "words").read_text().splitlines()[1]).exists()


def test_failure_is_one_error(stub: Path) -> None:
    (stub / "status").write_text("2")
    with pytest.raises(CommandFailedError, match="preparing web1 failed: ansible-playbook ended with 2") as caught:
        prepare_nodes(["web1,"], ["web1"], settings(stub), Wish((), {}))
    assert caught.value.hint


def test_unknown_node(stub: Path) -> None:
    with pytest.raises(NotFoundError, match="web3: not in the inventory"):
        prepare_nodes(["web1,web2"], ["web1", "web3"], settings(stub), Wish((), {}))
    assert not (stub / "words").exists()


def test_without_ansible(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stub / "bin" / "ansible-playbook").unlink()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError) as caught:
        prepare_nodes(["web1,"], ["web1"], settings(stub), Wish((), {}))
    assert "pip install ansible-core" in caught.value.hint


def test_command(stub: Path) -> None:
    words = ["-i", "web1,web2", "web1", "web2", "--engine", "podman", "--", "-K", "-e", "x=y"]
    done = CliRunner().invoke(prepare, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = (stub / "words").read_text().splitlines()
    assert told[2:4] == ["--limit", "web1,web2"]
    assert told[-4:-1] == ["-K", "-e", "x=y"]


def test_command_without_an_inventory_or_a_node(stub: Path) -> None:
    with pytest.raises(InvalidError, match="no inventory is given"):
        CliRunner().invoke(prepare, ["web1"], catch_exceptions=False)
    assert CliRunner().invoke(prepare, ["-i", "web1,", "--", "-K"]).exit_code == 2
