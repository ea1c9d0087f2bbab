"""The real `korch`, run as a person would: a process of its own, with its own KORCH_HOME. And what nodes show after it.

Every run is checked for what must never happen: a traceback, a crash file, the exit code 1 of an unexpected error, or
an error without a next step.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from korch.lab.lab import Lab
from korch.lab.machine import CLEAN_ENV
from korch.master.cluster import open_cluster
from korch.resources.codec import to_dict
from korch.resources.kinds import kind_named
from korch.settings import Settings
from tests.lab.conftest import node_host

ROOT = Path(__file__).parents[2]
KORCH = Path(sys.executable).parent / "korch"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Run:
    """One call that ended."""

    words: tuple[str, ...]
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"korch {' '.join(self.words)}: {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def all(self) -> str:
        """Both outputs."""
        return self.out + self.err

    def data(self) -> Any:
        """The standard output of `-o json`."""
        return json.loads(self.out)

    def rows(self) -> list[list[str]]:
        """The cells of the table of replicas that a deploy ends with: pod, node, state, address."""
        lines = self.out.splitlines()
        start = max(number for number, line in enumerate(lines) if line.startswith("POD "))
        return [re.split(r" {2,}", line.strip()) for line in lines[start + 1 :] if line.strip()]


@dataclass(frozen=True)
class Korch:
    """`korch` on one cluster: call it with words. `user_env` is added to a clean environment."""

    home: Path
    cluster: str = "e2e"
    inventory: str = ""
    cwd: Path = Path("/")
    user_env: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self,
        *words: str,
        status: int | None = 0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 200.0,
    ) -> Run:
        """The ended run; asserts its exit code unless `status` is None."""
        crashes = set(self.home.glob("crash-*"))
        done = subprocess.run(
            (str(KORCH), *words),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=self.environment(env),
            cwd=cwd or self.cwd,
            timeout=timeout_s,
            check=False,
        )
        run = Run(words, done.returncode, done.stdout, done.stderr)
        assert set(self.home.glob("crash-*")) == crashes, f"{run}\n{self.crash_text()}"
        assert "Traceback" not in run.all, run
        if status is not None:
            assert run.status == status, run
        return run

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of each run: nothing of the test's own gets in."""
        own = {"KORCH_HOME": str(self.home), "KORCH_CLUSTER": self.cluster, "KORCH_INVENTORY": self.inventory}
        locale = {"LANG": "C.UTF-8", "HOME": str(self.home), "PYTHONPATH": str(ROOT)}  # this very checkout
        return {**CLEAN_ENV, **locale, **{key: value for key, value in own.items() if value}, **self.user_env} | dict(
            more or {}
        )

    def fails(self, *words: str, status: int, says: Sequence[str] = (), **more: Any) -> Run:
        """A run that must end with this exit code, with one error that holds these texts, and with a next step."""
        run = self(*words, status=status, **more)
        for text in says:
            assert text in run.err, f"{text!r} is missing in\n{run}"
        if status not in (0, 2):
            assert len(re.findall(r"^Error: ", run.err, re.MULTILINE)) == 1, run
            assert "Hint: " in run.err, run
        return run

    def crash_text(self) -> str:
        """What unexpected errors left under KORCH_HOME."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("crash-*")))

    def objects(self, kinds: str, name: str = "", *, selector: str = "", all_namespaces: bool = False) -> list[Any]:
        """The objects as they are stored: of the namespace "default", or cluster-wide. Read here, for the sake of
        tests that look many times: `korch get` itself is a program start."""
        settings = Settings(self.home, self.environment().get("KORCH_CLUSTER", self.cluster))

        async def read() -> list[Any]:
            async with open_cluster(settings, need_inventory=False) as cluster:
                found: list[Any] = []
                for kind in map(kind_named, kinds.split(",")):
                    namespace = "default" if kind.namespaced and not all_namespaces else ""
                    if name:
                        found.append(await cluster.objects.get(kind.type, name, namespace))
                    else:
                        found += (await cluster.objects.list(kind.type, namespace, selector=selector or None)).items
                return [to_dict(one) for one in found]

        return asyncio.run(read())

    def with_env(self, **more: str) -> "Korch":
        """The same with further variables of the environment."""
        return replace(self, user_env={**self.user_env, **more})


@dataclass(frozen=True, slots=True)
class Container:
    """A container as a node's own engine shows it to testinfra."""

    node: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.data["Name"]).lstrip("/")

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.data["Id"])

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return bool(self.data["State"]["Running"])

    @property
    def birth(self) -> tuple[str, str]:
        """Id and start: equal only for a container that nobody touched."""
        return self.id, str(self.data["State"]["StartedAt"])

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.data["Config"]["Labels"] or {})

    @property
    def app(self) -> str:
        """The korch workload that it says it belongs to; "" for a foreign one."""
        return self.labels.get("korch.dev/owner", "")

    @property
    def env(self) -> dict[str, str]:
        """Its environment."""
        return dict(text.split("=", 1) for text in self.data["Config"]["Env"] if "=" in text)

    @property
    def arguments(self) -> list[str]:
        """The words that the image's entry point got."""
        return list(self.data["Config"]["Cmd"] or [])

    @property
    def memory_limit(self) -> int:
        """In bytes; 0 is none."""
        return int(self.data["HostConfig"]["Memory"])

    @property
    def cpu_shares(self) -> int:
        """Its weight."""
        return int(self.data["HostConfig"]["CpuShares"])

    @property
    def ports(self) -> dict[str, list[tuple[str, int]]]:
        """`8080/tcp` to the addresses where it is published."""
        found = self.data["HostConfig"]["PortBindings"] or {}
        actual = self.data["NetworkSettings"]["Ports"] or {}
        return {
            key: [(bound["HostIp"], int(bound["HostPort"])) for bound in actual.get(key) or ()] for key in sorted(found)
        }


FOREIGN = "somebody-elses"


@dataclass(frozen=True)
class Site:
    """A lab with korch beside it, and on every node a container and an image that are not korch's."""

    lab: Lab
    korch: Korch
    nodes: tuple[str, ...]

    def engine(self, node: str) -> str:
        """docker or podman."""
        return self.lab.spec(node).engine

    def image(self, version: str = "1") -> str:
        """The sample app in the lab's registry."""
        return self.lab.image(version)

    def each_node(self, call: Any) -> list[Any]:
        """What `call(node)` returns for every node, all at once."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return list(pool.map(call, self.nodes))

    def place_foreign(self) -> None:
        """Somebody else's container and image."""

        def place(node: str) -> None:
            engine, image = self.engine(node), self.image("2")
            script = 'set -e; "$1" pull -q "$2"; "$1" tag "$2" foreign:1; "$1" run -d --name "$3" --restart always "$2"'
            self.lab.exec_in(node, ("sh", "-c", script, "sh", engine, image, FOREIGN))

        self.each_node(place)

    def containers(self, *, foreign: bool = False) -> list[Container]:
        """Every container on every node, as testinfra sees it; somebody else's only when asked for."""

        def look(node: str) -> list[Container]:
            engine = self.engine(node)
            script = f'ids=$({engine} ps -aq); [ -z "$ids" ] || {engine} inspect --type container $ids'
            text = node_host(self.lab, node).check_output(script)
            return [Container(node, data) for data in json.loads(text or "[]")]

        found = [one for several in self.each_node(look) for one in several]
        return [one for one in found if foreign or one.name != FOREIGN]

    def of(self, app: str) -> list[Container]:
        """The containers of an app, all of them running ones or not."""
        return [one for one in self.containers() if one.app == app]

    def foreign(self) -> dict[str, Any]:
        """What must be the same before and after everything: per node somebody else's container and images."""

        def look(node: str) -> tuple[str, str]:
            engine = self.engine(node)
            script = (
                '"$1" inspect --type container --format "{{.Id}} {{.State.StartedAt}} {{.State.Running}}" "$2"; '
                '"$1" images --no-trunc --format "{{.ID}} {{.Repository}}:{{.Tag}}" | grep foreign'
            )
            return node, self.lab.exec_in(node, ("sh", "-c", script, "sh", engine, FOREIGN)).stdout

        return dict(self.each_node(look))

    def page(self, url: str, path: str = "/") -> str:
        """What a replica answers over the network."""
        with _OPENER.open(f"{url.rstrip('/')}{path}", timeout=5) as response:
            return str(response.read().decode()).strip()

    def shell(self, node: str, script: str, *words: str, check: bool = True) -> str:
        """Standard output of a root shell in the node, without SSH."""
        return self.lab.exec_in(node, ("sh", "-c", script, "sh", *words), check=check).stdout

    def clear(self) -> None:
        """Delete every app, and see that nothing of korch's is left on any node."""
        apps = [item["metadata"] for item in self.korch.objects("deploy", all_namespaces=True)]
        for space in sorted({meta["namespace"] for meta in apps}):
            self.korch("delete", "-n", space, *(meta["name"] for meta in apps if meta["namespace"] == space))
        left = [(one.node, one.name) for one in self.containers()]
        assert left == [], left
        wishes = self.each_node(lambda node: self.shell(node, "find /var/lib/korch -path '*/wishes/*'", check=False))
        assert "".join(wishes) == "", wishes

    def traces(self, app: str) -> list[str]:
        """Everything on the nodes that still speaks of an app: containers, stored wishes."""

        def look(node: str) -> list[str]:
            engine = self.engine(node)
            script = '"$1" ps -a --format "{{.Names}}" | grep -e "_$2-"; ls /var/lib/korch/*/wishes | grep -e "%2F$2"'
            return [f"{node} {line}" for line in self.shell(node, script, engine, app, check=False).splitlines()]

        return [line for lines in self.each_node(look) for line in lines]


def make_site(lab: Lab, home: Path, *, inventory: str | None = None, nodes: Sequence[str] = ()) -> Site:
    """Korch with an empty home, and somebody else's things on every node. The lab must be clean."""
    home.mkdir(parents=True, exist_ok=True)
    korch = Korch(home, inventory=str(lab.inventory_path) if inventory is None else inventory, cwd=home)
    site = Site(lab, korch, tuple(nodes or (node.name for node in lab.status().nodes)))
    site.place_foreign()
    return site


def write_inventory(path: Path, lab: Lab, hosts: Mapping[str, Mapping[str, object]], **all_vars: object) -> str:
    """An Ansible inventory with hosts of the lab: name to its variables; `node` there says which node it is."""
    common = lab_vars(lab) | all_vars
    entries = {}
    for name, given in hosts.items():
        own = dict(given)
        node = str(own.pop("node", name))
        entries[name] = {"ansible_host": lab.address(node), **own}
    data = {"all": {"vars": {key: value for key, value in common.items() if value is not None}, "hosts": entries}}
    path.write_text(yaml.safe_dump(data))
    return str(path)


def lab_vars(lab: Lab) -> dict[str, object]:
    """What the lab's own inventory says for all hosts."""
    return {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.ssh_key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.known_hosts} -o IdentitiesOnly=yes",
    }


def process_words() -> str:
    """The arguments of every process of this machine, the labs' nodes included."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(texts).decode(errors="replace")


def folder_text(folder: Path) -> str:
    """All text of all files below a folder."""
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def has_program(name: str) -> bool:
    """Whether this machine (and so an ordinary lab node) has it."""
    return shutil.which(name, path=os.environ.get("PATH", "")) is not None
