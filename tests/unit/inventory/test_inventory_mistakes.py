"""Every mistake in an inventory is one error that names file, line and key, and says what to do."""

from pathlib import Path

import pytest

from korch.errors import InvalidError
from korch.inventory import load_inventory

# id: (YAML text, line of the mistake, words of the message, words of the hint)
MISTAKES = {
    "tab": ("web:\n  hosts:\n\tweb1:\n", 3, "is not valid YAML", "tab"),
    "indentation": ("web:\n  hosts:\n    web1:\n   web2:\n", 4, "is not valid YAML", "indentation"),
    "unclosed quote": ('web:\n  vars: {ansible_user: "ann}\n', 3, "is not valid YAML", ""),
    "two documents": ("web: {hosts: {a: }}\n---\ndb: {hosts: {b: }}\n", 2, "single document", ""),
    "duplicate key": ("web:\n  hosts:\n    web1:\n    web1:\n", 4, 'key "web1" stands here twice', "join"),
    "duplicate group": ("web: {hosts: {a: }}\nweb: {hosts: {b: }}\n", 2, 'key "web" stands here twice', ""),
    "list for a map of groups": ("- web1\n- web2\n", 1, "an inventory is a map of groups", "all:"),
    "hosts as a list": ("web:\n  hosts:\n    - web1\n", 2, 'hosts of group "web" must be a map', "- name"),
    "hosts not below hosts": ("web:\n  web1: {}\n", 2, 'group "web": unexpected key "web1"', "below `hosts:`"),
    "misspelt section": ("web:\n  host: {web1: }\n", 2, 'unexpected key "host"; did you mean "hosts"?', ""),
    "group is text": ("web: web1\n", 1, 'group "web" must be a map', ""),
    "number as host": ("web:\n  hosts:\n    10:\n", 3, "10 is not text", "quotes"),
    "yes as group": ("yes: {hosts: {a: }}\n", 1, "True is not text", "quotes"),
    "host vars as text": ("web:\n  hosts:\n    web1: here\n", 3, 'host "web1" must be a map', ""),
    "vars as a list": ("web:\n  hosts: {a: }\n  vars: [1]\n", 3, 'vars of group "web" must be a map', ""),
    "unknown tag": ("web:\n  hosts:\n    a: {x: !env HOME}\n", 3, "tag !env is not supported", ""),
    "alias in itself": ("web: &w\n  hosts:\n    a: *w\n", 1, "inside its own anchor", ""),
    "unquoted braces": ("web:\n  vars:\n    ansible_host: {{ ip }}\n", 3, "where a key is expected", "quoted"),
    "unknown child": (
        "web: {hosts: {a: }}\nall:\n  children:\n    wbe:\n",
        4,
        'group "wbe" is not defined anywhere; did you mean "web"?',
        "empty",
    ),
    "own child": ("web:\n  hosts: {a: }\n  children:\n    web:\n", 4, 'group "web" is a child of itself', ""),
    "cycle": (
        "a: {hosts: {h: }, children: {b: }}\nb: {children: {c: }}\nc:\n  children:\n    a:\n",
        5,
        "groups form a cycle: a > b > c > a",
        "Remove",
    ),
    "cycle through all": ("all: {hosts: {h: }, children: {b: }}\nb:\n  children:\n    all:\n", 4, "all > b > all", ""),
    "priority": ("web: {hosts: {a: }, vars: {ansible_group_priority: high}}\n", 1, "not a whole number", ""),
    "range without end": ("web:\n  hosts:\n    'w[1:]':\n", 3, "[1:] is not a range", "[begin:end]"),
    "range not closed": ("web:\n  hosts:\n    'w[1:3':\n", 3, "bracket is not closed", ""),
    "range of widths": ("web:\n  hosts:\n    'w[01:100]':\n", 3, "differ in width", ""),
    "range upside down": ("web:\n  hosts:\n    'w[9:3]':\n", 3, "is empty", "after its end"),
    "range mixed": ("web:\n  hosts:\n    'w[a:3]':\n", 3, "mixes letters and numbers", ""),
    "range step": ("web:\n  hosts:\n    'w[1:3:0]':\n", 3, "step", ""),
    "range too long": ("web:\n  hosts:\n    'w[1:99999999]':\n", 3, "at most 10000", ""),
    "ranges too long": ("web:\n  hosts:\n    'w[1:999]-[1:999]':\n", 3, "stands for 998001 hosts", ""),
    "port too high": ("web:\n  hosts:\n    'w:70000':\n", 3, "port 70000 is not between", ""),
    "port value": (
        "web:\n  hosts:\n    w: {ansible_port: ssh}\n",
        3,
        "ansible_port of host \"w\" is 'ssh', not a whole",
        "",
    ),
    "port true": ("web:\n  hosts:\n    w: {ansible_port: true}\n", 3, "is True, not a whole number", ""),
    "address option": (
        "web:\n  hosts:\n    w: {ansible_host: -oProxyCommand=x}\n",
        3,
        "is not one word",
        "begin with -",
    ),
    "address space": ("web:\n  hosts:\n    w: {ansible_host: a b}\n", 3, "is not one word", ""),
    "address shell": ("web:\n  hosts:\n    w: {ansible_host: a$(id)}\n", 3, "no host name or address", ""),
    "user list": ("web:\n  hosts:\n    w: {ansible_user: [a]}\n", 3, "ansible_user of host", ""),
    "winrm": ("web:\n  hosts:\n    w: {ansible_connection: winrm}\n", 3, "by ssh or local only", "apart"),
    "become su": ("web:\n  hosts:\n    w: {ansible_become: true, ansible_become_method: su}\n", 3, "sudo -n", "sudo"),
    "become user": ("web:\n  hosts:\n    w: {ansible_become: true, ansible_become_user: ann}\n", 3, "root", ""),
    "become word": ("web:\n  hosts:\n    w: {ansible_become: maybe}\n", 3, "neither true nor false", ""),
    "ssh args quote": (
        "web:\n  vars:\n    ansible_ssh_common_args: -o 'X\n  hosts: {w: }\n",
        3,
        "split into words",
        "",
    ),
    "vault": (
        "web:\n  hosts:\n    w:\n      ansible_user: !vault |\n        $ANSIBLE_VAULT;1.1\n",
        4,
        "encrypted",
        "vaults",
    ),
    "jinja filter": (
        "web:\n  hosts:\n    w:\n      ansible_user: \"{{ x | default('a') }}\"\n",
        4,
        "more than korch",
        "{{",
    ),
    "jinja statement": (
        'web:\n  hosts:\n    w:\n      ansible_user: "{% if x %}a{% endif %}"\n',
        4,
        "more than korch",
        "",
    ),
    "jinja undefined": (
        'web:\n  hosts:\n    w:\n      ansible_user: "{{ nobody }}"\n',
        4,
        "not defined for this host",
        "",
    ),
    "jinja circle": (
        'web:\n  hosts:\n    w:\n      a: "{{ b }}"\n      b: "{{ a }}"\n      ansible_user: "{{ a }}"\n',
        5,
        "circle",
        "",
    ),
    "jinja open": ('web:\n  hosts:\n    w:\n      ansible_host: "{{ x"\n', 4, "not closed", ""),
    "unknown korch variable": (
        "web:\n  vars:\n    korch_lables: {a: b}\n  hosts: {w: }\n",
        3,
        'unknown variable "korch_lables"; did you mean "korch_labels"?',
        "korch_zone",
    ),
    "unknown variable of an empty group": ("a: {hosts: {w: }}\nweb: {vars: {korch_x: 1}}\n", 2, "korch_x", ""),
    "labels as list": ("web:\n  hosts:\n    w:\n      korch_labels: [a]\n", 4, "not a map", "korch_labels"),
    "label name": ("web:\n  hosts:\n    w:\n      korch_labels:\n        a b: c\n", 5, "is not a label name", ""),
    "label prefix": ("web:\n  hosts:\n    w:\n      korch_labels:\n        A_B/c: d\n", 5, "is not a label name", ""),
    "label value": (
        "web:\n  hosts:\n    w:\n      korch_labels:\n        ok: a\n        a: b/c\n",
        6,
        "has the value 'b/c'",
        "",
    ),
    "label bool": ("web:\n  hosts:\n    w:\n      korch_labels:\n        ssd: yes\n", 5, "must be text", "quotes"),
    "label octal": ("web:\n  hosts:\n    w:\n      korch_labels:\n        rack: 012\n", 5, "must be text", "quotes"),
    "label reserved": (
        "web:\n  hosts:\n    w:\n      korch_labels:\n        kubernetes.io/hostname: x\n",
        5,
        "set by korch itself",
        "",
    ),
    "taint shape": (
        "web:\n  hosts:\n    w:\n      korch_taints:\n        - NoSchedule\n",
        5,
        "is not a taint",
        "key=value",
    ),
    "taint effect": (
        "web:\n  hosts:\n    w:\n      korch_taints:\n        - a=b:NoSchedule\n        - a=b:NoShedule\n",
        6,
        'did you mean "NoSchedule"?',
        "NoExecute",
    ),
    "taint twice": ("web:\n  hosts:\n    w:\n      korch_taints: ['a=b:NoExecute', 'a=c:NoExecute']\n", 4, "twice", ""),
    "taints as text": ("web:\n  hosts:\n    w:\n      korch_taints: a=b:NoSchedule\n", 4, "not a list", ""),
    "engine": ("web:\n  hosts:\n    w: {korch_engine: dcoker}\n", 3, 'did you mean "docker"?', "docker or podman"),
    "address name": ("web:\n  hosts:\n    w: {korch_address: web1.lab}\n", 3, "not an IP address", "bind"),
    "address any": ("web:\n  hosts:\n    w: {korch_address: 0.0.0.0}\n", 3, "cannot connect", ""),
    "zone": ("web:\n  hosts:\n    w: {korch_zone: rack 1}\n", 3, "not a label value", ""),
    "max pods": ("web:\n  hosts:\n    w: {korch_max_pods: 0}\n", 3, "from 1 to", ""),
    "reserved key": ("web:\n  hosts:\n    w: {korch_reserved: {mem: 1Gi}}\n", 3, "use cpu and memory", ""),
    "reserved value": ("web:\n  hosts:\n    w: {korch_reserved: {memory: 1 GB}}\n", 3, "write bytes as 256Mi", ""),
    "transport": (
        "web:\n  hosts:\n    w: {korch_transport: opensh}\n",
        3,
        'did you mean "openssh"?',
        "fabric or openssh",
    ),
    "shared": ("web:\n  hosts:\n    w: {korch_shared: perhaps}\n", 3, "neither true nor false", ""),
    "node names": ("web:\n  hosts:\n    web_1:\n    WEB-1:\n", 4, 'would both be node "web-1"', "Rename"),
    "node name": ("web:\n  hosts:\n    'web~1':\n", 3, "cannot be a node name", "ansible_host"),
    "same address": (
        "web:\n  hosts:\n    a: {ansible_host: 10.0.0.1}\n    b: {ansible_host: 10.0.0.1, ansible_port: 22}\n",
        4,
        'has the same address and port as "a"',
        "once only",
    ),
    "same ipv6": (
        "web:\n  hosts:\n    a: {ansible_host: '2001:db8:0::1'}\n    b: {ansible_host: '[2001:DB8::1]'}\n",
        4,
        "same address",
        "",
    ),
    "two locals": (
        "web:\n  vars: {ansible_connection: local}\n  hosts:\n    a: {}\n    b: {ansible_host: x}\n",
        5,
        "same address",
        "",
    ),
    "two addresses": (
        "web:\n  hosts:\n    a: {ansible_host: 10.0.0.1}\ndb:\n  hosts:\n    a: {ansible_host: 10.0.0.2}\n",
        6,
        'host "a" has ansible_host 10.0.0.2 here and 10.0.0.1 at',
        "another name",
    ),
}


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_names_file_line_and_reason(text: str, line: int, message: str, hint: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(text)
    with pytest.raises(InvalidError) as caught:
        load_inventory([str(file)], home=tmp_path)
    told = str(caught.value)
    assert told.startswith(f"{file}:{line}: ")
    assert message in told
    assert hint in caught.value.hint


def test_mistake_in_a_vars_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("web: {hosts: {a: }}")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "web.yml").write_text("ansible_user: ann\nkorch_enigne: docker\n")
    with pytest.raises(InvalidError, match=r'group_vars/web\.yml:2: unknown variable "korch_enigne"; did you mean'):
        load_inventory([str(tmp_path / "hosts.yml")], home=tmp_path)


def test_one_name_with_two_addresses_in_two_sources(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("web: {hosts: {a: {ansible_host: 10.0.0.1}}}")
    (tmp_path / "b.yml").write_text("\ndb: {hosts: {a: {ansible_host: 10.0.0.2}}}")
    with pytest.raises(InvalidError, match=r"b\.yml:2: .*10\.0\.0\.2 here and 10\.0\.0\.1 at .*a\.yml:1"):
        load_inventory([str(tmp_path / "a.yml"), str(tmp_path / "b.yml")], home=tmp_path)


def test_same_address_behind_another_jump_host_is_another_machine(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(
        "web:\n  hosts:\n"
        "    a: {ansible_host: 10.0.0.1, ansible_ssh_common_args: -J site1}\n"
        "    b: {ansible_host: 10.0.0.1, ansible_ssh_common_args: -J site2}\n"
    )
    assert len(load_inventory([str(file)], home=tmp_path).hosts) == 2


@pytest.mark.parametrize("text", ["", "# nothing\n", "web: {hosts: }", "{}"])
def test_no_hosts(text: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(text)
    with pytest.raises(InvalidError, match="has no hosts"):
        load_inventory([str(file)], home=tmp_path)


def test_not_text(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_bytes(b"web: \xff\xfe")
    with pytest.raises(InvalidError, match="not UTF-8"):
        load_inventory([str(file)], home=tmp_path)
    file.write_bytes(b"web: \x00")
    with pytest.raises(InvalidError, match="is not YAML"):
        load_inventory([str(file)], home=tmp_path)


def test_encrypted_inventory(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text("$ANSIBLE_VAULT;1.1;AES256\n6233\n")
    with pytest.raises(InvalidError, match=r"hosts\.yml:1: the inventory is encrypted"):
        load_inventory([str(file)], home=tmp_path)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("wbe", '"wbe" matches no host and no group; did you mean "web"?'),
        ("web:!wbe", '"wbe" matches no host'),
        ("nothing*", "matches no host"),
        ("web:!web", "leaves no host"),
        ("web[7]", "picks no host"),
        ("~[", "not a regular expression"),
        ("!", "pattern is empty"),
    ],
)
def test_limit_that_means_nothing(limit: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text("web: {hosts: {a: , b: }}\ndb: {hosts: {c: }}")
    with pytest.raises(InvalidError) as caught:
        load_inventory([str(file)], home=tmp_path, limit=limit)
    assert message in str(caught.value)
