"""Hostile words in every place where a user can put one: refused with one clear message, or brought there unchanged."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from korch.lab.lab import Lab
from tests.lab.conftest import node_host, wiped
from tests.lab.korch_cli import Korch, Site, make_site, write_inventory

QUICK = ("--settle", "0")
HOSTILE = {
    "shell": "a b$(touch pwned)`touch pwned`;touch pwned|'\"\\ &",
    "lines": "two\nlines ünï \u202e東京",
    "dash": "-rf",
    "option": "--rm=x",
    "upwards": "../../x",
    "long": "x" * 300,
}
IMAGE = "127.0.0.1:1/web:1"
Words = Callable[[str], tuple[str, ...]]


def deploy(*words: str) -> tuple[str, ...]:
    return ("deploy", IMAGE, "--dry-run", *words)


REFUSED: dict[str, Words] = {
    "name": lambda word: deploy("--name", word),
    "image": lambda word: ("deploy", "--dry-run", "--name", "web", "--", f"{word}:1"),
    "env name": lambda word: deploy("--env", f"{word} =1"),
    "port": lambda word: deploy("--port", word),
    "node port": lambda word: deploy("--port", f"{word}:80"),
    "volume": lambda word: deploy("--volume", f"{word}:/data"),
    "mount path": lambda word: deploy("--volume", f"data:{word}"),
    "label of nodes": lambda word: deploy("--node-selector", f"{word}=x"),
    "value of a label": lambda word: deploy("--node-selector", f"zone={word}"),
    "namespace": lambda word: deploy("--namespace", word),
    "cpu": lambda word: deploy("--cpu", word),
    "memory": lambda word: deploy("--memory", word),
    "health path": lambda word: deploy("--port", "80", "--health", word),
    "file": lambda word: ("deploy", "--dry-run", "-f", word),
    "manifest": lambda word: ("apply", "--dry-run", "-f", word),
    "env-file": lambda word: deploy("--env-file", word),
    "cluster": lambda word: ("get", "pods", "--cluster", word),
    "inventory": lambda word: ("nodes", "--cluster", "other", "-i", word),
    "limit": lambda word: ("deploy", IMAGE, "--limit", word),
    "kind": lambda word: ("get", "--", word),
    "selector": lambda word: ("get", "pods", "-l", word),
    "pod": lambda word: ("get", "pod", "--", word),
    "app to delete": lambda word: ("delete", "--", word),
    "app to scale": lambda word: ("scale", "--", f"{word}=2"),
    "app to undo": lambda word: ("rollout", "undo", "--", word),
    "app of logs": lambda word: ("logs", "--", word),
    "pod to enter": lambda word: ("exec", "--", word, "true"),
    "app to explain": lambda word: ("why", "--", word),
    "lost node": lambda word: ("whatif", "--lose", word),
    "node to cordon": lambda word: ("node", "cordon", "--", word),
    "node to trust": lambda word: ("node", "trust", "--yes", "--", word),
    "node to forget": lambda word: ("node", "rm", "--", word),
}


@pytest.fixture(scope="module")
def korch(tmp_path_factory: pytest.TempPathFactory) -> Korch:
    """A cluster of one host that nobody can reach: whoever tries to is noticed by another exit code."""
    home = tmp_path_factory.mktemp("words")
    (home / "hosts.yml").write_text("all: {hosts: {n1: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    made = Korch(home, inventory=str(home / "hosts.yml"), cwd=home)
    made("get", "pods")
    return made


@pytest.mark.parametrize("place", REFUSED)
def test_hostile_words_are_refused(korch: Korch, place: str) -> None:
    def attempt(kind: str) -> None:
        run = korch(*REFUSED[place](HOSTILE[kind]), status=None)
        assert run.status in (3, 4), run  # refused, or not found; never reached the host (6), never unexpected (1)
        assert run.out == "", run
        assert len(re.findall(r"^Error: ", run.err, re.MULTILINE)) == 1, run
        assert "\u202e" not in run.err  # a message cannot be turned around

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(attempt, HOSTILE))
    assert not list(korch.home.rglob("pwned"))
    assert sorted(path.name for path in korch.home.iterdir()) == ["clusters", "hosts.yml"]
    assert [path.name for path in (korch.home / "clusters").iterdir()] == ["e2e"]


# --- manifests and korch.yml ---

APP = "name: web\nimage: reg/web:1\n"
POD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      {spec}
      containers:
      - name: web
        image: reg/web:1
        {container}
"""
FILES = {
    "unknown key": (APP + "replcias: 3\n", "f.yml:3:", ('"replcias" is not a key', "replicas")),
    "unknown key inside": (APP + "resources:\n  cpus: 1\n", "f.yml:4:", ("resources.cpus",)),
    "no image": ("name: web\n", "f.yml:1:", ("image is missing",)),
    "no DNS label": ("name: My_App\nimage: reg/web:1\n", "f.yml:1:", ("My_App", "DNS label")),
    "number of replicas": (APP + "replicas: many\n", "f.yml:3:", ("replicas", "many")),
    "port": (APP + 'ports: ["80:99999"]\n', "f.yml:3:", ("99999",)),
    "same key twice": (APP + "image: reg/web:2\n", "f.yml:3:", ("image",)),
    "no YAML": ("name: [\n", "f.yml:2:", ()),
    "tabs": ("name: web\n\timage: x\n", "f.yml:2:", ()),
    "empty": ("", "f.yml", ("empty",)),
    "unknown field": (POD.format(spec="", container="imagePullPolcy: Always"), "f.yml:14:", ("imagePullPolcy",)),
    "unsupported field": (POD.format(spec="hostPID: true", container=""), "f.yml:10:", ("hostPID",)),
    "unsupported kind": ("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\n", "f.yml:", ("CronJob",)),
    "wrong type": (POD.format(spec="", container="args: hello"), "f.yml:14:", ("args",)),
    "selector beside labels": (
        POD.format(spec="", container="").replace("matchLabels: {app: web}", "matchLabels: {app: other}"),
        "f.yml:",
        ("selector",),
    ),
    "secret that nobody gave": (APP + "secrets: [PASSWORD]\n", "f.yml", ("PASSWORD",)),
    "not UTF-8": (APP + "env: {A: \udcff}\n", "f.yml", ("UTF-8",)),
}


@pytest.mark.parametrize("case", FILES)
def test_mistakes_in_files_name_the_line(korch: Korch, tmp_path: Path, case: str) -> None:
    text, where, says = FILES[case]
    (tmp_path / "f.yml").write_text(text, errors="surrogateescape")
    run = korch("deploy", "-f", "f.yml", cwd=tmp_path, status=3)
    assert where in run.err, run
    for word in says:
        assert word in run.err, run
    assert korch.objects("deploy") == []


def test_all_mistakes_of_a_file_at_once(korch: Korch, tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_text("name: Web\nreplicas: -1\nport: 80\n")
    run = korch("deploy", "-f", "f.yml", cwd=tmp_path, status=3)
    assert [f"f.yml:{line}:" in run.err for line in (1, 2, 3)] == [True] * 3


# --- words that have a right to be there ---

VALUES = {
    "SHELL": "a b$(touch /tmp/pwned)`id`;'\"\\ & | > <",
    "LINES": "\ntwo\nlines\n\n",
    "UNICODE": "ünï 東京 \U0001f680 \u202e",
    "DASH": "--privileged",
    "EMPTY": "",
    "EQUALS": "a=b=c",
    "DOLLAR": "$HOME ${PATH} $$(HOME)",
    "PERCENT": "%s %d {{.ID}}",
    "LONG": "x" * 20_000,
}
ARGUMENTS = ["a b", "$(touch /tmp/pwned)", "`id`", ";", "'", '"', "\\", "new\nline", "ü東", "--rm", "", "{{.ID}}", "*"]


@pytest.fixture(scope="module", params=["docker", "podman"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The inventory, the working folder and KORCH_HOME have hostile names (`;` parts those in KORCH_INVENTORY)."""
    lab: Lab = request.getfixturevalue(f"{request.param}_lab")
    home = tmp_path_factory.mktemp("words") / "home $(touch pwned) '\" ü"
    home.mkdir()
    hosts = {node: {"korch_labels": {"rack": "A-1"}} for node in ("n1", "n2", "n3")}
    inventory = write_inventory(home / "my hosts $(touch pwned) '\" ü.yml", wiped(lab), hosts)
    made = make_site(lab, home, inventory=inventory)
    before = made.foreign()
    yield made
    made.clear()
    assert made.foreign() == before
    assert not list(home.parent.rglob("pwned"))
    for node in made.nodes:
        assert made.shell(node, "find / -xdev -name pwned 2>/dev/null; ls /tmp", check=False).split() == []


def test_hostile_words_arrive_unchanged(site: Site) -> None:
    app = {
        "name": "words",
        "image": site.image(),
        "command": ARGUMENTS,
        "env": VALUES,
        "volumes": ["/srv/host $(touch pwned) 'ü\";:/in the $(touch pwned) \"box' ü", "data:/data"],
        "constraints": {"rack": "A-1"},
    }
    for name in site.nodes:  # a path of the host is mounted, never made
        assert node_host(site.lab, name).run("mkdir -p -- %s", "/srv/host $(touch pwned) 'ü\";").succeeded
    file = site.korch.home / "my app $(touch pwned) ;'\" ü.yml"
    file.write_text(yaml.safe_dump(app, allow_unicode=True))
    secrets = site.korch.home / "-secret $(touch pwned) ü.env"
    secrets.write_text('TOKEN="s\nt"\n')
    words = ("deploy", "-f", file.name, "--env-file", secrets.name, "--namespace", "odd-space", *QUICK)
    site.korch.fails(*words, status=4, says=('namespace "odd-space" not found', "kind: Namespace"))
    site.korch("apply", "-f", "-", stdin="{apiVersion: v1, kind: Namespace, metadata: {name: odd-space}}")
    done = site.korch(*words)
    assert "words: 1 of 1 replicas run" in done.out
    (found,) = site.of("words")
    assert found.arguments == ARGUMENTS
    assert {name: found.env[name] for name in VALUES} == VALUES
    assert found.env["TOKEN"] == "s\nt"
    assert found.labels["korch.dev/namespace"] == "odd-space"
    # As the process itself has them, and not only as the engine says it was told.
    host = node_host(site.lab, found.node)
    seen = host.run(f"tr '\\0' '\\001' < /proc/{found.data['State']['Pid']}/cmdline").stdout
    assert seen.removesuffix("\1").split("\1")[-len(ARGUMENTS) :] == ARGUMENTS
    assert "/srv/host $(touch pwned) 'ü\";" in {mount["Source"] for mount in found.data["Mounts"]}
    pod, mounted = found.labels["korch.dev/pod"], "/in the $(touch pwned) \"box' ü"
    site.korch("exec", pod, "-n", "odd-space", "--", "test", "-d", mounted)
    assert "nothing to change" in site.korch(*words).out


def test_hostile_words_in_a_manifest_arrive_unchanged(site: Site) -> None:
    notes = {"example.com/note": VALUES["SHELL"] + VALUES["LINES"]}
    container = {
        "name": "words",
        "image": site.image(),
        "command": ["/bin/tini", "--", "sh", "-c", 'printf "%s|" "$@"; echo; exec sleep 1000', "sh", *ARGUMENTS],
        "env": [{"name": name, "value": value.replace("$(", "$$(")} for name, value in VALUES.items()],
        "workingDir": "/tmp",
    }
    labels = {"app": "said"}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "said", "annotations": notes},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    site.korch("apply", "-f", "-", stdin=json.dumps(manifest))
    (found,) = site.of("said")
    expected = {name: value.replace("$$$(", "$$(") for name, value in VALUES.items()}
    assert {name: found.env[name] for name in VALUES} == expected
    said = site.korch("logs", "said")
    assert said.out.removesuffix("\n") == "".join(f"{word}|" for word in ARGUMENTS)
    (stored,) = site.korch.objects("deploy", "said")
    assert stored["metadata"]["annotations"]["example.com/note"] == notes["example.com/note"]
