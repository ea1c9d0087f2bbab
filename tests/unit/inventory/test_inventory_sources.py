"""What a source is, and what each kind gives."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import InvalidError, NotFoundError, SetupError
from korch.inventory import Host, Inventory, load_inventory, node_name
from korch.inventory.ansible_yaml import why_not_native
from korch.inventory.hostnames import expand_host_pattern, split_port
from korch.inventory.load import parse_source
from korch.inventory.programs import Ran, find_program, run_program
from korch.inventory.vagrant import parse_ssh_config, parse_status


def load(text: str, folder: Path, **more: str) -> Inventory:
    (folder / "hosts.yml").write_text(text)
    return load_inventory([str(folder / "hosts.yml")], home=folder, **more)


def test_every_field_of_a_host(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "web1").touch()
    inventory = load(
        """
all:
  vars:
    domain: {name: lab}
    ansible_ssh_common_args: -o ProxyJump=bastion -o "ProxyCommand=nc -X 5 %h %p"
    ansible_ssh_extra_args: -C
web:
  vars:
    korch_zone: rack-1
    korch_labels: {disk: ssd, rack: 7}
  hosts:
    web1:
      ansible_host: "{{ inventory_hostname }}.{{ domain['name'] }}"
      ansible_port: "{{ port }}"
      port: 2222
      ansible_user: ann
      ansible_ssh_private_key_file: "{{ inventory_dir }}/keys/web1"
      ansible_become: yes
      korch_taints: [dedicated=db:NoSchedule, "gone:NoExecute"]
      korch_engine: podman
      korch_address: 10.0.0.7
      korch_max_pods: "30"
      korch_reserved: {cpu: 500m, memory: 1Gi}
      korch_shared: true
      korch_transport: openssh
    here: {ansible_connection: local, ansible_ssh_common_args: "", ansible_ssh_extra_args: null}
""",
        tmp_path,
    )
    assert inventory.host("web1") == Host(
        name="web1",
        address="web1.lab",
        port=2222,
        user="ann",
        identity_file=str(tmp_path / "keys" / "web1"),
        ssh_args=("-o", "ProxyJump=bastion", "-o", "ProxyCommand=nc -X 5 %h %p", "-C"),
        connection="ssh",
        become=True,
        groups=("web",),
        labels={"disk": "ssd", "rack": "7"},
        taints=("dedicated=db:NoSchedule", "gone:NoExecute"),
        engine="podman",
        node_address="10.0.0.7",
        zone="rack-1",
        max_pods=30,
        reserved={"cpu": "500m", "memory": "1Gi"},
        shared=True,
        transport="openssh",
        origin=f"{tmp_path}/hosts.yml:12",
    )
    here = inventory.host("here")
    assert (here.connection, here.ssh_args, here.become, here.port) == ("local", (), None, None)


def test_relative_key_is_looked_for_here_then_beside_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = "web: {hosts: {a: {ansible_ssh_private_key_file: key}}}"
    assert load(text, tmp_path).host("a").identity_file == str(tmp_path / "here" / "key")
    (tmp_path / "key").touch()
    assert load(text, tmp_path).host("a").identity_file == str(tmp_path / "key")
    (tmp_path / "here" / "key").touch()
    assert load(text, tmp_path).host("a").identity_file == str(tmp_path / "here" / "key")


def test_vault_matters_only_where_korch_needs_the_value(tmp_path: Path) -> None:
    (tmp_path / "group_vars" / "web").mkdir(parents=True)
    (tmp_path / "group_vars" / "web" / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6233\n")
    inventory = load("web: {hosts: {a: {app_secret: !vault 'x', ansible_user: !unsafe '{{u}}'}}}", tmp_path)
    assert inventory.host("a").user == "{{u}}"
    assert inventory.warnings == (f"{tmp_path}/group_vars/web/vault.yml is encrypted and was not read",)


def test_password_in_the_inventory_is_told_not_used(tmp_path: Path) -> None:
    inventory = load("web:\n  vars:\n    ansible_password: hunter2\n  hosts: {a: }", tmp_path)
    assert inventory.warnings[0].startswith(f"{tmp_path}/hosts.yml:3: ansible_password of host a is not used")
    assert "hunter2" not in str(inventory)


def test_limit_restricts_placement_only(tmp_path: Path) -> None:
    inventory = load("web: {hosts: {a: , b: }}\ndb: {hosts: {c: }}", tmp_path, limit="web:!b")
    assert [host.name for host in inventory.hosts] == ["a", "b", "c"]
    assert inventory.placeable == {"a"}
    assert load("web: {hosts: {a: , b: }}", tmp_path).placeable == {"a", "b"}


def test_unknown_host_is_not_found_with_a_guess(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match='did you mean "node1"'):
        load("web: {hosts: {node1: , other: }}", tmp_path).host("ndoe1")


def test_later_sources_win_and_add(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("web: {hosts: {h1: {ansible_user: ann}, h2: }}")
    (tmp_path / "b.yml").write_text("db: {hosts: {h1: {ansible_user: bob}}}\nall: {vars: {korch_zone: z}}")
    inventory = load_inventory([str(tmp_path / "a.yml"), str(tmp_path / "b.yml"), "h3,"], home=tmp_path)
    assert {host.name: (host.user, host.zone, host.groups) for host in inventory.hosts} == {
        "h1": ("bob", "z", ("db", "web")),
        "h2": (None, "z", ("web",)),
        "h3": (None, "z", ("ungrouped",)),
    }


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("vagrant", "vagrant"),
        ("vagrant:sub", "vagrant"),
        ("./vagrant", "ansible"),
        ("sub", "ansible"),
        ("a@b", "ansible"),
        ("a@c", "list"),
        ("web1,", "list"),
        ("root@web1,web2:2222,[::1]:22", "list"),
    ],
)
def test_sources_are_told_apart(text: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "vagrant").touch()
    (tmp_path / "a@b").touch()
    assert parse_source(text, tmp_path).kind == kind


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("web1", "neither a file nor a list", '"web1,"'),
        ("", "neither a file nor a list", ""),
        ("x" * 5000, "neither a file nor a list", ""),
        ("~nobody-of-that-name/hosts", "does not exist", "path"),
        ("hosts.yml", "does not exist", "path"),
        ("ann@./hosts", "does not exist", "path"),
        ("lab", 'there is no lab "lab"', "korch lab up"),
        ("lab:two", 'there is no lab "two"', "korch lab up"),
        ("@web1", "is not a host", "user@"),
        ("a b,", "is not a host", ""),
        ("-oProxyCommand=x@a,", "not one word", ""),
        ("ann@-oProxyCommand", "is not a host", ""),
        (",", "names no host", ""),
        ("a:99999,", "port 99999", ""),
        ("web1,web1", "stands there twice", ""),
        ("ann@web1,bob@web1", "stands there twice", ""),
    ],
)
def test_wrong_sources(text: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidError) as caught:
        load_inventory([text], home=tmp_path)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no inventory is given"):
        load_inventory([], home=tmp_path)


def test_labs_are_found_in_korch_home(tmp_path: Path) -> None:
    for name in ("lab", "two"):
        folder = tmp_path / "labs" / name
        folder.mkdir(parents=True)
        (folder / "inventory.yml").write_text(f"lab: {{hosts: {{{name}-1: }}}}")
    assert [host.name for host in load_inventory(["lab"], home=tmp_path).hosts] == ["lab-1"]
    assert [host.name for host in load_inventory(["lab:two"], home=tmp_path).hosts] == ["two-1"]


def test_plain_list(tmp_path: Path) -> None:
    hosts = load_inventory(["ann@web1, web2:2222,[::1]:22,fe80::2,127.0.0.1:2201,127.0.0.1"], home=tmp_path).hosts
    assert [(host.name, host.address, host.port, host.user) for host in hosts] == [
        ("web1", "web1", None, "ann"),
        ("web2", "web2", 2222, None),
        ("::1", "::1", 22, None),
        ("fe80::2", "fe80::2", None, None),
        ("127.0.0.1-2201", "127.0.0.1", 2201, None),
        ("127.0.0.1-22", "127.0.0.1", None, None),
    ]
    assert hosts[0].groups == ("ungrouped",)


@pytest.mark.parametrize(
    ("host", "node"),
    [
        ("web1", "web1"),
        ("Web_1.Lab", "web-1.lab"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "0--1"),
        ("fe80::", "fe80--0"),
        ("2001:DB8:0:0::7", "2001-db8--7"),
    ],
)
def test_node_names(host: str, node: str) -> None:
    assert node_name(host) == node


@pytest.mark.parametrize(
    "host", ["", "-a", "a-", "a..b", "a b", "a/b", "höst", "a" * 64, "_a", "a\n", ".".join(["a" * 60] * 5)]
)
def test_names_that_cannot_be_nodes(host: str) -> None:
    with pytest.raises(InvalidError, match="cannot be a node name") as caught:
        node_name(host)
    assert caught.value.hint


@given(st.text(alphabet="abAB01-_.:[]", max_size=12))
def test_node_name_settles(host: str) -> None:
    try:
        name = node_name(host)
    except InvalidError:
        return
    assert node_name(name) == name


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9), st.integers(1, 4))
def test_ranges_are_python_ranges(low: int, length: int, step: int, width: int) -> None:
    begin, end = str(low).zfill(width), str(low + length).zfill(width)
    if len(begin) != len(end):
        return
    names, port = expand_host_pattern(f"n[{begin}:{end}:{step}]x:2022")
    padded = width if begin.startswith("0") and len(begin) > 1 else 0
    assert names == [f"n{str(n).zfill(padded)}x" for n in range(low, low + length + 1, step)]
    assert port == 2022


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a", None)),
        ("a:1", ("a", 1)),
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:5", ("::1", 5)),
        ("n[1:3]", ("n[1:3]", None)),
        ("n[1:3]:5", ("n[1:3]", 5)),
        ("[1:3]", ("[1:3]", None)),
    ],
)
def test_ports_are_split_off(text: str, parts: tuple[str, int | None]) -> None:
    assert split_port(text) == parts


SSH_CONFIG = """\
Host node1
  HostName 127.0.0.1
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/ann/my project/.vagrant/machines/node1/libvirt/private \\"key\\""
  IdentityFile /home/ann/.vagrant.d/insecure_private_key
  IdentitiesOnly yes
  LogLevel FATAL

Host node2
  HostName 192.168.121.5
  User vagrant
  Port 22
  IdentityFile /k
  ProxyCommand ssh -W %h:%p "jump host"
"""


def answers(table: Mapping[str, Ran]) -> tuple[list[tuple[str, Path | None]], object]:
    asked: list[tuple[str, Path | None]] = []

    def runner(argv: Sequence[str], folder: Path | None, variables: Mapping[str, str]) -> Ran:
        asked.append((" ".join(argv), folder))
        assert variables["VAGRANT_CHECKPOINT_DISABLE"] == "1"
        return table[" ".join(argv)]

    return asked, runner


def test_vagrant_machines(tmp_path: Path) -> None:
    asked, runner = answers({"vagrant ssh-config": Ran(0, SSH_CONFIG, "")})
    inventory = load_inventory([f"vagrant:{tmp_path}"], home=tmp_path, runner=runner)
    assert asked == [("vagrant ssh-config", tmp_path)]
    node1, node2 = inventory.hosts
    assert (node1.address, node1.port, node1.user, node1.groups) == ("127.0.0.1", 2222, "vagrant", ("vagrant",))
    assert node1.identity_file == '/home/ann/my project/.vagrant/machines/node1/libvirt/private "key"'
    assert node1.ssh_args == tuple(
        word
        for option in (
            "UserKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "PasswordAuthentication=no",
            "IdentityFile=/home/ann/.vagrant.d/insecure_private_key",
            "IdentitiesOnly=yes",
        )
        for word in ("-o", option)
    )
    assert node2.ssh_args == ("-o", 'ProxyCommand=ssh -W %h:%p "jump host"')


def test_another_source_adds_to_vagrant_machines(tmp_path: Path) -> None:
    _asked, runner = answers({"vagrant ssh-config": Ran(0, SSH_CONFIG, "")})
    (tmp_path / "more.yml").write_text("fast: {vars: {korch_labels: {disk: ssd}}, hosts: {node2: }}")
    inventory = load_inventory(["vagrant", str(tmp_path / "more.yml")], home=tmp_path, runner=runner)
    assert inventory.host("node2").labels == {"disk": "ssd"}
    assert inventory.select("vagrant:&fast") == {"node2"}


STATUS = (
    "1700000000,node1,metadata,provider,libvirt\n1700000000,node1,state,running\n1700000000,node2,state,shutoff\n"
    "1700000000,node3,state,not_created\n1700000000,,ui,info,Current machine states:%!(VAGRANT_COMMA) more\n"
)


def test_machines_that_do_not_run_are_left_out(tmp_path: Path) -> None:
    only_one = SSH_CONFIG.split("\nHost node2", maxsplit=1)[0]
    asked, runner = answers(
        {
            "vagrant ssh-config": Ran(1, only_one, "The provider reports that it is not yet ready for SSH"),
            "vagrant status --machine-readable": Ran(0, STATUS, ""),
            "vagrant ssh-config node1": Ran(0, only_one, ""),
        }
    )
    inventory = load_inventory([f"vagrant:{tmp_path}"], home=tmp_path, runner=runner)
    assert [host.name for host in inventory.hosts] == ["node1"]
    assert inventory.warnings == (
        "vagrant machine node2 is shutoff: left out",
        "vagrant machine node3 is not_created: left out",
    )
    assert len(asked) == 3


def test_no_machine_runs(tmp_path: Path) -> None:
    status = "1,node1,state,poweroff\n"
    _asked, runner = answers(
        {"vagrant ssh-config": Ran(1, "", "no"), "vagrant status --machine-readable": Ran(0, status, "")}
    )
    with pytest.raises(InvalidError, match=r"no machine .* runs \(node1 is poweroff\)") as caught:
        load_inventory([f"vagrant:{tmp_path}"], home=tmp_path, runner=runner)
    assert "vagrant up" in caught.value.hint


def test_vagrant_faults_are_told(tmp_path: Path) -> None:
    failed = Ran(1, "", "A Vagrant environment or target machine\nis required to run this command.")
    _asked, runner = answers({"vagrant ssh-config": failed, "vagrant status --machine-readable": failed})
    with pytest.raises(InvalidError, match="A Vagrant environment or target machine is required"):
        load_inventory([f"vagrant:{tmp_path}"], home=tmp_path, runner=runner)
    with pytest.raises(InvalidError, match="is no folder"):
        load_inventory([f"vagrant:{tmp_path}/nowhere"], home=tmp_path, runner=runner)


def test_vagrant_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="vagrant is not installed") as caught:
        load_inventory([f"vagrant:{tmp_path}"], home=tmp_path)
    assert "apt-get install vagrant" in caught.value.hint


def test_parsers_pass_over_noise() -> None:
    assert parse_ssh_config("==> some notice\n  User x\n\n# Host no\n") == []
    assert parse_ssh_config('Host "a b"\n Port = 7\n')[0].options == (("Port", "7"),)
    assert parse_status("junk\n1,,state,running\n1,n,state\n") == {}


def test_ini_goes_through_ansible(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[web]\nw[1:2] ansible_user=ann korch_max_pods=7\n[web:vars]\nkorch_zone=z\n")
    (tmp_path / "more.yml").write_text("db: {hosts: {d1: {ansible_host: 10.0.0.9}}}")
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / "w2.yml").write_text("korch_labels: {a: b}\nsecret: !vault x\nliteral: !unsafe '{{x}}'\n")
    inventory = load_inventory([str(tmp_path / "hosts"), str(tmp_path / "more.yml")], home=tmp_path)
    assert {
        host.name: (host.user, host.max_pods, host.zone, host.labels, host.address) for host in inventory.hosts
    } == {
        "w1": ("ann", 7, "z", {}, "w1"),
        "w2": ("ann", 7, "z", {"a": "b"}, "w2"),
        "d1": (None, None, None, {}, "10.0.0.9"),
    }
    assert inventory.groups["web"] == ("w1", "w2")


def test_scripts_go_through_ansible(tmp_path: Path) -> None:
    script = tmp_path / "dynamic"
    script.write_text(
        '#!/bin/sh\necho \'{"web": {"hosts": ["a"]}, "_meta": {"hostvars": {"a": {"ansible_port": 7}}}}\'\n'
    )
    script.chmod(0o755)
    assert load_inventory([str(script)], home=tmp_path).host("a").port == 7


def test_faults_of_ansible_are_told(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("[web\nw1\n")
    with pytest.raises(InvalidError, match=r"hosts\.ini: ansible-inventory refuses it: .*"):
        load_inventory([str(tmp_path / "hosts.ini")], home=tmp_path)
    (tmp_path / "other.ini").write_text("w1 korch_zne=a\n")
    with pytest.raises(InvalidError, match=r'other\.ini: unknown variable "korch_zne"'):
        load_inventory([str(tmp_path / "other.ini")], home=tmp_path)


@pytest.mark.parametrize("answer", ["", "[]", '{"web": []}', '{"_meta": {"hostvars": []}}', '{"_meta": []}'])
def test_answers_that_are_no_inventory(answer: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").touch()

    def runner(argv: Sequence[str], folder: Path | None, variables: Mapping[str, str]) -> Ran:
        assert argv[1:] == ["-i", str(tmp_path / "hosts.ini"), "--list"]
        return Ran(0, answer, "")

    with pytest.raises(InvalidError, match="something else than its JSON"):
        load_inventory([str(tmp_path / "hosts.ini")], home=tmp_path, runner=runner)


def test_ansible_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts.ini").write_text("w1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SetupError, match=r"hosts\.ini is not YAML: only Ansible can read it") as caught:
        load_inventory([str(tmp_path / "hosts.ini")], home=tmp_path)
    assert "pip install ansible-core" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("hosts", "web: {hosts: {a: }}", ""),
        ("hosts", "[web]\na\n", "is not YAML"),
        ("hosts", "web1\nweb2\n", "is not YAML"),
        ("hosts", "#!/bin/sh\n", "is a script"),
        ("hosts", "# empty\n", ""),
        ("aws.yml", "plugin: amazon.aws.aws_ec2\n", "configures an inventory plugin"),
        ("broken.yml", "a: [", ""),
        ("hosts.ini", "", "is not YAML"),
    ],
)
def test_which_files_need_ansible(name: str, text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    told = why_not_native(tmp_path / name)
    assert (why in told) if why else told == ""


def test_programs_are_found_beside_python_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("venv", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert find_program("tool") == str(tmp_path / "venv" / "tool")
    os.remove(tmp_path / "venv" / "tool")
    assert find_program("tool") == str(tmp_path / "path" / "tool")


def test_programs_run_where_they_are_told_to(tmp_path: Path) -> None:
    ran = run_program(("sh", "-c", 'pwd; echo "$X" >&2; exit 3'), tmp_path, {"X": "y"})
    assert (ran.status, ran.stdout.strip(), ran.stderr) == (3, str(tmp_path), "y\n")


def test_a_vagrant_machine_made_anew_is_a_host_never_seen(tmp_path: Path) -> None:
    def aliases(text: str, folder: Path) -> list[str]:
        _asked, runner = answers({"vagrant ssh-config": Ran(0, text, "")})
        hosts = load_inventory([f"vagrant:{folder}"], home=tmp_path, runner=runner).hosts
        words = [word for host in hosts for word in host.ssh_args]
        return [word.partition("=")[2] for word in words if word.startswith("HostKeyAlias=")]

    (tmp_path / "below").mkdir()
    for name in ("node1", "node2"):
        (tmp_path / ".vagrant/machines" / name / "libvirt").mkdir(parents=True)
        (tmp_path / ".vagrant/machines" / name / "libvirt/id").write_text(f"id-of-{name}\n")
    (first,) = aliases(SSH_CONFIG, tmp_path)  # node2's configuration does not say that its key does not matter
    assert first.startswith("vagrant-node1-")
    assert aliases(SSH_CONFIG, tmp_path / "below") == [first]
    assert aliases(SSH_CONFIG.replace("127.0.0.1", "localhost"), tmp_path) == [first]
    for change in (
        ("127.0.0.1", "8.8.8.8"),
        ("127.0.0.1", "web.example.com"),
        ("StrictHostKeyChecking no", "StrictHostKeyChecking ask"),
        ("UserKnownHostsFile /dev/null", "UserKnownHostsFile /k"),
    ):
        assert aliases(SSH_CONFIG.replace(*change), tmp_path) == []
    path = tmp_path / ".vagrant/machines/node1/libvirt/id"
    path.write_text("made anew")
    (second,) = aliases(SSH_CONFIG, tmp_path)
    assert second != first
    path.unlink()
    assert aliases(SSH_CONFIG, tmp_path) == []
