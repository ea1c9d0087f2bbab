"""korch reads what Ansible reads: generated inventories and hand-written ones against `ansible-inventory --list`."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from korch.errors import InvalidError
from korch.inventory import Inventory, load_inventory
from korch.inventory.patterns import split_pattern
from tests.unit.inventory.inventory_oracle import Oracle

GROUPS = [f"g{number}" for number in range(6)]
HOST_PATTERNS = [
    "h1",
    "h2",
    "h[1:4]",
    "n[01:03]",
    "n[01:12:4]",
    "m-[a:c].lab",
    "x[1:2]y[a:b]",
    "p[0:9:3]:2222",
    "h3:2022",
]
PATTERNS = [
    "all", "*", "g0", "g1:g2", "g0,g3", "all:!g1", "g2:&g3", "!g1", "&g2", "h*", "g?", "*.lab", "h1,n0*", "g1[0]",
    "~[hn].*1", "g4:!h1:&all", "ungrouped", "n[01]*", "nothing", "g0:!nothing", "h[1:2]",
]  # fmt: skip
PARTS = sorted({part.lstrip("!&") for pattern in PATTERNS for part in split_pattern(pattern)})

variables = st.fixed_dictionaries(
    {},
    optional={
        "ansible_user": st.sampled_from(["ann", "bob", "cid", "dan"]),
        "ansible_port": st.integers(1, 65535),
        "ansible_become": st.booleans(),
        "korch_zone": st.sampled_from(["rack-1", "rack-2", "{{ inventory_hostname }}", "{{ other }}"]),
        "korch_max_pods": st.integers(1, 500),
        "korch_labels": st.dictionaries(
            st.sampled_from(["disk", "gpu", "arch"]), st.sampled_from(["a", "b"]), max_size=2
        ),
        "korch_taints": st.lists(st.sampled_from(["a=b:NoSchedule", "c:NoExecute"]), unique=True),
        "ansible_ssh_common_args": st.sampled_from(["-o ProxyJump=b1", "-o 'ProxyCommand=nc %h %p' -C"]),
        "other": st.sampled_from(["one", "two"]),
    },
)
group_vars = st.tuples(variables, st.integers(-2, 12) | st.none()).map(
    lambda pair: {**pair[0], **({} if pair[1] is None else {"ansible_group_priority": pair[1]})}
)


@st.composite
def inventory(draw: st.DrawFn) -> dict[str, Any]:
    """Groups with hosts and vars; a group's children come after it, so there is no cycle. Every group has a body."""
    data: dict[str, Any] = {}
    for index, name in enumerate(GROUPS):
        body: dict[str, Any] = {"vars": draw(group_vars)}
        hosts = draw(st.lists(st.sampled_from(HOST_PATTERNS), max_size=3, unique=True))
        body["hosts"] = {pattern: draw(variables | st.none()) for pattern in hosts}
        later = draw(st.lists(st.sampled_from(GROUPS[index + 1 :]), max_size=2, unique=True)) if index < 5 else []
        body["children"] = dict.fromkeys(later)
        data[name] = body
    data["all"] = {"vars": draw(group_vars), "hosts": {draw(st.sampled_from(HOST_PATTERNS)): draw(variables)}}
    order = draw(st.permutations(list(data)))
    return {name: data[name] for name in order}


var_files = st.dictionaries(
    st.sampled_from(["group_vars/all", "group_vars/g1", "group_vars/g3", "host_vars/h1", "host_vars/n01"]),
    st.tuples(st.sampled_from(["", ".yml", ".yaml", ".json", "/main.yml", "/deep/10"]), variables),
    max_size=4,
)


def write(folder: Path, data: dict[str, Any], files: dict[str, tuple[str, dict[str, Any]]], name: str) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text(yaml.safe_dump(data, sort_keys=False))
    for path, (form, content) in files.items():
        target = folder / (path + form)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content) if form == ".json" else yaml.safe_dump(content))


def members(listed: dict[str, Any], group: str) -> set[str]:
    body = listed.get(group, {})
    below = [members(listed, child) for child in body.get("children", [])]
    return set(body.get("hosts", [])).union(*below)


def filled(value: Any, host: str, hostvars: dict[str, Any]) -> Any:
    if value == "{{ other }}":
        return hostvars["other"]
    return host if value == "{{ inventory_hostname }}" else value


def agree(ours: Inventory, listed: dict[str, Any]) -> None:
    hosts = members(listed, "all")
    assert {host.name for host in ours.hosts} == hosts
    for group in ours.groups:
        assert set(ours.groups[group]) == members(listed, group), group
    for host in ours.hosts:
        hostvars = listed["_meta"]["hostvars"].get(host.name, {})
        expected = {
            "user": hostvars.get("ansible_user"),
            "port": hostvars.get("ansible_port"),
            "become": hostvars.get("ansible_become"),
            "zone": filled(hostvars.get("korch_zone"), host.name, hostvars),
            "max_pods": hostvars.get("korch_max_pods"),
            "labels": hostvars.get("korch_labels", {}),
            "taints": tuple(hostvars.get("korch_taints", [])),
            "address": filled(hostvars.get("ansible_host", host.name), host.name, hostvars),
        }
        assert {key: getattr(host, key) for key in expected} == expected, host.name
        assert bool(host.ssh_args) == ("ansible_ssh_common_args" in hostvars)
        assert set(host.groups) == {group for group in listed if group not in {"all", "_meta"}} & {
            group for group in listed if host.name in members(listed, group)
        }


def selections(ours: Inventory, theirs: dict[str, list[str] | None]) -> None:
    """Where Ansible only warns of a part that matches nothing, korch refuses; an empty group is no mistake."""
    for pattern in PATTERNS:
        parts = [part.lstrip("!&") for part in split_pattern(pattern)]
        unknown = [part for part in parts if not theirs[part] and part not in ours.groups]
        if set(unknown) - {"g?"}:
            with pytest.raises(InvalidError):
                ours.select(pattern)
        else:
            assert set(ours.select(pattern)) == set(theirs[pattern] or []), pattern


folders = (f"case{number}" for number in itertools.count())


# No shrinking: at 0.1 s a question it takes minutes; `note` shows the inventory.
@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=inventory(),
    first_files=var_files,
    second=st.none() | inventory(),
    second_files=var_files,
    whole=st.booleans(),
)
def test_generated_inventories_read_as_ansible_reads_them(
    tmp_path: Path,
    oracle: Oracle,
    first: dict[str, Any],
    first_files: dict[str, Any],
    second: dict[str, Any] | None,
    second_files: dict[str, Any],
    whole: bool,
) -> None:
    base = tmp_path / next(folders)
    write(base / "a", first, first_files, "hosts.yml")
    sources = [str(base / "a" if whole else base / "a" / "hosts.yml")]
    if second is not None:
        write(base / "b", second, second_files, "more")
        sources.append(str(base / "b" / "more"))
    answer = oracle.ask(sources, [*PATTERNS, *PARTS])
    note(yaml.safe_dump(first) + str(first_files))
    hostvars = answer["list"]["_meta"]["hostvars"].values()
    if any(values.get("korch_zone") == "{{ other }}" and "other" not in values for values in hostvars):
        with pytest.raises(InvalidError, match="is not defined for this host"):
            load_inventory(sources, home=tmp_path)
    else:
        ours = load_inventory(sources, home=tmp_path)
        agree(ours, answer["list"])
        selections(ours, answer["select"])
    shutil.rmtree(base)


HAND_WRITTEN = {
    "priority": """
        all: {hosts: {h1: }, vars: {ansible_user: top}}
        a: {hosts: {h1: }, vars: {ansible_user: a, ansible_group_priority: 10}}
        b: {hosts: {h1: }, vars: {ansible_user: b}}
        """,
    "child beats parent": """
        parent:
          vars: {ansible_user: parent, korch_zone: p}
          children: {child: {hosts: {h1: }, vars: {ansible_user: c}}}
        """,
    "longest way decides the depth": """
        a: {children: {b: {children: {c: {hosts: {h1: }, vars: {ansible_user: c}}}}, c: }}
        z: {hosts: {h1: }, vars: {ansible_user: z}}
        """,
    "ungrouped": "{all: {hosts: {h1: , h2: }}, ungrouped: {hosts: {h2: , h3: }}, web: {hosts: {h3: }}}",
    "one word for a map": "{web: {hosts: web1, children: db}, db: {hosts: db1}}",
    "ipv6 and ports": "{web: {hosts: {'[2001:db8::7]:2222': , 'fe80::1': , '10.0.0.[1:3]:22': }}}",
    "anchors and merge keys": """
        web: {vars: &v {ansible_user: ann, ansible_port: 23}, hosts: {h1: }}
        db: {hosts: {h2: {<<: *v, ansible_user: bob}}}
        """,
    "null switches off": "{all: {vars: {ansible_user: ann}}, web: {hosts: {h1: {ansible_user: null}}}}",
    "letters": "{web: {hosts: {'w[y:B]': , 'v[:2]': , 'u[08:11]': }}}",
}


@pytest.mark.parametrize("text", HAND_WRITTEN.values(), ids=HAND_WRITTEN)
def test_hand_written_inventories(text: str, tmp_path: Path, oracle: Oracle) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(text)
    answer = oracle.ask([str(file)], ["all", "web[1:2]", "web[0]"])
    ours = load_inventory([str(file)], home=tmp_path)
    agree(ours, answer["list"])


def test_folder_of_files_skips_what_ansible_skips(tmp_path: Path, oracle: Oracle) -> None:
    for name, text in {
        "10-web.yml": "{web: {hosts: {h1: }}}",
        "20-db.yaml": "{db: {hosts: {h2: }, children: {web: }}}",
        "sub/30.json": '{\n\t"deep": {"hosts": {"h3": {}}}\n}',
        "40-web.yml~": "web: {hosts: {backup: }}",
        ".hidden.yml": "web: {hosts: {hidden: }}",
        "notes.md": "# not an inventory",
        "group_vars/web/a.yml": "ansible_user: ann",
        "group_vars/web/b.yml": "ansible_user: bob",
        "group_vars/web/.c.yml": "ansible_user: cid",
        "group_vars/web/d.ini": "ansible_user: dan",
        "group_vars/all.yml": "korch_zone: z1",
        "host_vars/h3": "korch_zone: z3",
    }.items():
        path = tmp_path / "inv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    ours = load_inventory([str(tmp_path / "inv")], home=tmp_path)
    agree(ours, oracle.ask([str(tmp_path / "inv")])["list"])
    assert {host.name: (host.user, host.zone) for host in ours.hosts} == {
        "h1": ("bob", "z1"),
        "h2": (None, "z1"),
        "h3": (None, "z3"),
    }
