"""The main job, end to end: from an inventory to running replicas, through every change of mind, to nothing left over.

The tests of one engine share a lab and a cluster; each has apps of its own. What korch says is compared with what
testinfra sees on the nodes.
"""

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from korch.lab.lab import Lab
from tests.lab.conftest import node_host, wiped
from tests.lab.korch_cli import Container, Run, Site, folder_text, make_site, process_words

QUICK = ("--settle", "0")


@pytest.fixture(scope="module", params=["docker", "podman"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab: Lab = request.getfixturevalue(f"{request.param}_lab")
    made = make_site(wiped(lab), tmp_path_factory.mktemp("main-job"))
    before = made.foreign()
    yield made
    made.clear()
    assert made.foreign() == before


def deploy(site: Site, name: str, *words: str, version: str = "1", status: int = 0) -> Run:
    """A deploy of the sample app without settling time."""
    return site.korch("deploy", site.image(version), "--name", name, *QUICK, *words, status=status)


def urls(run: Run) -> list[str]:
    return [row[3] for row in run.rows()]


def answers(site: Site, run: Run) -> list[str]:
    """The pages of all replicas that a run lists; a replica without a health check may need a moment."""
    pages = []
    for url in urls(run):
        for attempt in range(100):
            try:
                pages.append(site.page(url))
                break
            except (URLError, OSError, http.client.HTTPException):
                if attempt == 99:
                    raise
                threading.Event().wait(0.05)
    return pages


def births(containers: list[Container]) -> set[tuple[str, str]]:
    return {found.birth for found in containers}


def revision(site: Site, app: str) -> dict[str, Any]:
    (found,) = site.korch.objects("deploy", app)
    return found


# --- the first deploy ---


def test_three_replicas_run_on_three_nodes_as_asked(site: Site) -> None:
    limits = ("--memory", "64Mi", "--cpu", "250m", "--env", "COLOUR=deep blue")
    ports = ("--port", "18080:8080", "--port", "9090")  # a fixed node port: no two of them on one node
    done = deploy(site, "web", "--replicas", "3", *limits, *ports, "--health", "/healthz")
    rows = done.rows()
    assert {row[1] for row in rows} == {"n1", "n2", "n3"}
    assert {row[2] for row in rows} == {"ready"}
    assert "web: 3 of 3 replicas run" in done.out
    found = site.of("web")
    assert sorted(one.node for one in found) == ["n1", "n2", "n3"]
    pods = {pod["metadata"]["name"]: pod for pod in site.korch.objects("pods", selector="app=web")}
    cluster = site.korch("cluster", "show", "-o", "json").data()["id"]
    for one in found:
        assert one.running
        pod = pods[one.labels["korch.dev/pod"]]
        assert one.labels["korch.dev/uid"] == pod["metadata"]["uid"]
        assert one.labels["korch.dev/cluster"] == cluster
        assert one.labels["korch.dev/namespace"] == "default"
        assert one.node == pod["spec"]["nodeName"]
        assert one.memory_limit == 64 << 20
        assert one.cpu_shares == 256
        assert one.env["COLOUR"] == "deep blue"
        assert one.ports["8080/tcp"] == [(site.lab.address(one.node), 18080)]
        ((address, port),) = one.ports["9090/tcp"]  # a free one that the engine chose
        assert address == site.lab.address(one.node)
        assert port > 1024
    # Every page comes from the replica that the table names.
    for pod, node, _, addresses in rows:
        assert addresses.split()[0] == f"http://{site.lab.address(node)}:18080"
        assert site.page(addresses.split()[0]) == f"web version 1 on {pod}"
    # Published on the node address and nowhere else, as the node itself sees it.
    host = node_host(site.lab, "n1")
    assert host.socket(f"tcp://{site.lab.address('n1')}:18080").is_listening
    assert not host.socket("tcp://127.0.0.1:18080").is_listening
    assert not host.socket("tcp://0.0.0.0:18080").is_listening


def test_same_command_again_changes_nothing(site: Site) -> None:
    words = ("--replicas", "2", "--port", "8080", "--env", "A=1")
    deploy(site, "same", *words)
    before, generation = births(site.of("same")), revision(site, "same")["metadata"]["generation"]
    again = deploy(site, "same", *words)
    assert "deployment/same unchanged" in again.out
    assert "same: nothing to change, 2 of 2 replicas run" in again.out
    assert births(site.of("same")) == before
    assert revision(site, "same")["metadata"]["generation"] == generation


def test_scaling_keeps_the_others_and_no_replicas_given_keeps_the_number(site: Site) -> None:
    deploy(site, "scale", "--replicas", "1")
    first = births(site.of("scale"))
    up = site.korch("scale", "scale=4")
    assert "scale: 4 of 4 replicas run" in up.out
    four = births(site.of("scale"))
    assert len(four) == 4
    assert first < four
    assert "nothing to change, 4 of 4" in deploy(site, "scale").out
    site.korch("scale", "scale=2")
    assert len(births(site.of("scale"))) == 2
    assert births(site.of("scale")) < four
    site.korch("scale", "scale=0")
    assert site.of("scale") == []


# --- changes ---


def events(site: Site, app: str) -> list[tuple[float, str, str]]:
    """(time, start|stop, container) of the app as the engines recorded it, from all nodes: their clock is one."""

    def read(node: str) -> list[tuple[float, str, str]]:
        docker = site.engine(node) == "docker"
        flags = f"--until {time.time():.3f} --format '{{{{json .}}}}'" if docker else "--stream=false --format json"
        text = site.shell(
            node, f"{site.engine(node)} events --since 10m {flags} --filter label=korch.dev/owner=$1", app
        )
        found = []
        for line in text.splitlines():
            event = json.loads(line)
            what = {"start": "start", "kill": "stop", "die": "stop", "died": "stop"}.get(
                event.get("Action", event.get("Status"))
            )
            if what:
                found.append((_time_of(event), what, event.get("id") or event.get("ID")))
        return found

    return sorted(one for several in site.each_node(read) for one in several)


def _time_of(event: dict[str, Any]) -> float:
    if "timeNano" in event:
        return float(event["timeNano"]) / 1e9
    import datetime

    head, _, fraction = event["Time"].rstrip("Z").partition(".")
    whole = datetime.datetime.fromisoformat(head).replace(tzinfo=datetime.UTC).timestamp()
    return whole + float(f"0.{fraction or 0}")


def fewest_serving(history: list[tuple[float, str, str]], warm_up_s: float) -> int:
    """The lowest number of containers that had run for `warm_up_s`, since the first time that all of them had."""
    started: dict[str, float] = {}
    ended: dict[str, float] = {}
    for when, what, container in history:
        (started if what == "start" else ended).setdefault(container, when)
    changes = [(when + warm_up_s, 1) for name, when in started.items() if ended.get(name, 1e18) > when + warm_up_s]
    changes += [(ended[name], -1) for name, when in started.items() if when + warm_up_s < ended.get(name, 0)]
    count, best, lowest = 0, 0, 0
    for _, step in sorted(changes):
        count += step
        if count > best:
            best, lowest = count, count
        lowest = min(lowest, count)
        if best >= 3 and lowest < best - 1:
            break
    return lowest


def test_an_update_rolls_without_a_moment_below_the_floor(site: Site) -> None:
    # A replica is unhealthy in its first 2 seconds: who counts it too early drops below the floor.
    common = ("--port", "8080", "--env", "READY_AFTER_S=2", "--health", "/healthz")
    first = deploy(site, "roll", "--replicas", "3", *common)
    assert len(set(answers(site, first))) == 3
    done = deploy(site, "roll", *common, version="2")
    assert "roll: 3 of 3 replicas run" in done.out
    assert all(page.startswith("web version 2 on ") for page in answers(site, done))
    assert len(site.of("roll")) == 3
    history = events(site, "roll")
    assert sum(what == "start" for _, what, _ in history) == 6
    assert fewest_serving(history, warm_up_s=1.0) == 3  # the app counts whole seconds


@pytest.mark.parametrize(
    ("version", "says"),
    [
        pytest.param("broken", ("the health check failed", "the database does not answer"), id="unhealthy"),
        pytest.param("crash", ("exited with status 3", "web crash: cannot read /etc/web.conf"), id="crashing"),
    ],
)
def test_a_bad_version_goes_back_by_itself(site: Site, version: str, says: tuple[str, ...]) -> None:
    name = f"back-{version}"
    health = ("--health", "/healthz", "--port", "8080")
    deploy(site, name, "--replicas", "2", *health)
    before = births(site.of(name))
    bad = site.korch.fails(
        "deploy",
        site.image(version),
        "--name",
        name,
        *QUICK,
        *health,
        status=9,
        says=(*says, "Rolled back", "last log"),
    )
    assert re.search(rf'"{name}": {name}-\S+ on n[123]: ', bad.err)  # the object and the host
    assert births(site.of(name)) == before
    assert all(page.startswith("web version 1") for page in answers(site, bad))
    assert site.korch("rollout", "status", name).out.startswith(f"{name}: 2 of 2 replicas are up to date")
    reasons = {found["type"]: found["reason"] for found in revision(site, name)["status"]["conditions"]}
    assert "RolledBack" in reasons
    site.korch("sync")  # it stays so: the broken one is not tried again by itself
    assert births(site.of(name)) == before


def test_a_first_version_that_crashes_fails_and_leaves_the_words(site: Site) -> None:
    # With nothing to settle, the moment before the crash is enough to count as running.
    site.korch.fails(
        "deploy",
        site.image("crash"),
        "--name",
        "never",
        "--settle",
        "3",
        status=9,
        says=("never-", "web crash: cannot read"),
    )
    site.korch("delete", "never")
    assert site.of("never") == []
    assert site.traces("never") == []


def test_settings_are_a_change_too(site: Site) -> None:
    deploy(site, "setting", "--env", "A=1")
    before = births(site.of("setting"))
    changed = deploy(site, "setting", "--env", "A=2")
    assert "deployment/setting configured" in changed.out
    (found,) = site.of("setting")
    assert found.birth not in before
    assert found.env["A"] == "2"


def test_a_tag_that_moved_is_a_change(site: Site, point_tag: Callable[[Site, str, str], str]) -> None:
    image = point_tag(site, "moving", "1")
    words = ("deploy", image, "--name", "moved", "--replicas", "2", "--port", "8080", *QUICK)
    site.korch(*words)
    before = births(site.of("moved"))
    assert "nothing to change" in site.korch(*words).out
    point_tag(site, "moving", "2")
    done = site.korch(*words)
    assert "deployment/moved configured" in done.out
    assert all(page.startswith("web version 2") for page in answers(site, done))
    assert not births(site.of("moved")) & before
    undone = site.korch("rollout", "undo", "moved")  # the tag says 2, the record of revision 1 does not
    assert all(page.startswith("web version 1") for page in answers(site, undone))


@pytest.fixture
def point_tag() -> Callable[[Site, str, str], str]:
    """A function (site, tag, version) that makes a tag of the registry mean a version; the image's name."""
    import urllib.request

    def point(site: Site, tag: str, version: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        base = f"http://{site.lab.registry}/v2/web/manifests"
        with opener.open(urllib.request.Request(f"{base}/{version}", headers={"Accept": kind}), timeout=10) as answer:
            manifest = answer.read()
        request = urllib.request.Request(f"{base}/{tag}", data=manifest, method="PUT", headers={"Content-Type": kind})
        with opener.open(request, timeout=10):
            return site.image(tag)

    return point


def test_undo_history_and_restart(site: Site) -> None:
    common = ("--replicas", "2", "--port", "8080")
    deploy(site, "past", *common)
    deploy(site, "past", *common, version="2")
    undone = site.korch("rollout", "undo", "past")
    assert all(page.startswith("web version 1") for page in answers(site, undone))
    history = site.korch("rollout", "history", "past").out.splitlines()
    assert [line.split()[0] for line in history] == ["REVISION", "2", "3"]
    assert "yes" in history[2]
    before = births(site.of("past"))
    again = site.korch("rollout", "restart", "past")
    assert all(page.startswith("web version 1") for page in answers(site, again))
    assert not births(site.of("past")) & before
    assert len(site.of("past")) == 2
    back = site.korch("rollout", "undo", "past", "--to-revision", "2")
    assert all(page.startswith("web version 2") for page in answers(site, back))
    site.korch.fails("rollout", "undo", "past", "--to-revision", "77", status=4, says=("77",))


def test_delete_leaves_nothing(site: Site) -> None:
    deploy(site, "gone", "--replicas", "3", "--port", "8080", "--env", "A=1")
    kept = births([one for one in site.containers() if one.app != "gone"])
    assert site.traces("gone")
    deleted = site.korch("delete", "gone")
    assert "deployment/gone deleted" in deleted.out
    assert site.of("gone") == []
    assert site.traces("gone") == []
    assert births(site.containers()) == kept
    for kind in ("deploy", "rs", "pods"):
        assert not [one for one in site.korch.objects(kind) if one["metadata"]["name"].startswith("gone")]
    site.korch.fails("delete", "gone", status=4, says=("gone",))


# --- values ---

SECRETS = {
    "PLAIN_ONE": "marker7531-plain",
    "WITH_NEWLINES": "marker7531-first\nsecond line\n\n  fourth, indented\n",
    "WITH_QUOTES": "marker7531 'single' \"double\" `tick` $HOME $(id) \\n \\",
    "UNICODE": "marker7531 Grüße, Ελλάδα, 東京, \U0001f680",
}


def test_secrets_arrive_whole_and_stand_nowhere(site: Site, tmp_path: Path) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'

    file = tmp_path / "secrets.env"
    file.write_text("# of the database\n" + "".join(f"{name}={quoted(value)}\n" for name, value in SECRETS.items()))
    stop, seen = threading.Event(), []

    def watch() -> None:
        """What anybody on this machine, and on any node, could see with ps while it happens."""
        while not stop.is_set():
            seen.extend(line for line in process_words().splitlines() if "marker7531" in line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        words = ("deploy", site.image(), "--name", "hush", "--replicas", "2", "--env-file", str(file), *QUICK)
        runs = [site.korch("-v", *words), site.korch(*words)]
    finally:
        stop.set()
        watcher.join()
    assert seen == []
    assert "nothing to change" in runs[1].out
    for one in site.of("hush"):
        shown = node_host(site.lab, one.node).check_output(
            f"{site.engine(one.node)} exec {one.name} sh -c 'for n in {' '.join(SECRETS)}; do"
            ' eval "printf %s \\"\\${#$n}:\\$$n\\"" | base64 | tr -d "\\n"; echo; done\''
        )
        import base64

        values = [base64.b64decode(line).decode().split(":", 1)[1] for line in shown.splitlines()]
        assert values == list(SECRETS.values())
    file.write_text(file.read_text().replace("marker7531-plain", "marker7531-other"))
    runs += [site.korch(*words, "--dry-run", "-o", "yaml"), site.korch("plan", *words[1:-2]), site.korch("-v", *words)]
    assert "2 to start, 2 to stop" in runs[-2].out
    assert "deployment/hush configured" in runs[-1].out
    assert {one.env["PLAIN_ONE"] for one in site.of("hush")} == {"marker7531-other"}
    runs += [
        site.korch("events"),
        site.korch("describe", "deploy/hush"),
        site.korch("get", "deploy,rs,pods", "-o", "yaml"),
        site.korch("describe", "pods"),
        site.korch("logs", "hush"),
        site.korch("why", "hush", "-o", "json"),
    ]
    for run in runs:
        assert "marker7531" not in run.all, run.words
    for node in site.nodes:  # neither the stored wish nor anything else in korch's folder
        assert "marker7531" not in site.shell(
            node, "cat /var/lib/korch/*/wishes/* /var/lib/korch/*/* 2>/dev/null; true"
        )
    site.korch("delete", "hush")
    assert "marker7531" not in json.dumps(site.korch.objects("secrets", all_namespaces=True))
    assert folder_text(site.korch.home / "clusters").count("marker7531-other") in (0, 0)


def test_named_volumes_survive_a_roll(site: Site) -> None:
    words = ("--volume", "data:/data", "--replicas", "1")
    deploy(site, "keeps", *words)
    site.korch("exec", "deploy/keeps", "--", "sh", "-c", "echo precious > /data/file")
    (before,) = site.of("keeps")
    done = deploy(site, "keeps", *words, version="2")
    (after,) = site.of("keeps")
    assert (after.node, after.id != before.id) == (before.node, True)
    assert "keeps: 1 of 1 replicas run" in done.out
    assert site.korch("exec", "deploy/keeps", "--", "cat", "/data/file").out == "precious\n"
    site.korch("delete", "keeps")
    volumes = site.shell(before.node, f"{site.engine(before.node)} volume ls -q")
    assert "_default_data" in volumes  # a volume is the user's: it stays


# --- looking ahead ---


def test_dry_run_and_plan_change_nothing(site: Site) -> None:
    everything = births(site.containers())
    dry = deploy(site, "dry", "--replicas", "3", "--port", "8080", "--dry-run", "-o", "yaml")
    assert "kind: Deployment" in dry.out
    assert "replicas: 3" in dry.out
    site.korch.fails("get", "deploy", "dry", status=4, says=("dry",))
    (site.korch.home / "plan.yml").write_text(f"name: planned\nimage: {site.image()}\nreplicas: 3\n")
    planned = site.korch("plan", "-f", "plan.yml")
    assert planned.out.count("+ start planned") == 3
    assert len(re.findall(r" on n[123]: ", planned.out)) == 3
    site.korch.fails("get", "deploy", "planned", status=4)
    assert births(site.containers()) == everything
    first = site.korch("deploy", "-f", "plan.yml", *QUICK)
    assert "planned: 3 of 3 replicas run" in first.out
    (site.korch.home / "plan.yml").write_text(f"name: planned\nimage: {site.image('2')}\nreplicas: 2\n")
    before = births(site.of("planned"))
    change = site.korch("plan", "-f", "plan.yml")
    assert "2 to start, 3 to stop" in change.out
    assert births(site.of("planned")) == before
    # What a dry run of the expansion prints is a manifest that can be applied.
    expanded = site.korch("deploy", "-f", "plan.yml", "--dry-run", "-o", "yaml").out
    applied = site.korch("apply", "-f", "-", stdin=expanded)
    assert "planned: 2 of 2 replicas run" in applied.out


def test_why_and_whatif(site: Site) -> None:
    deploy(site, "reason", "--replicas", "2")
    why = site.korch("why", "reason")
    for row in site.korch.objects("pods", selector="app=reason"):
        assert f"{row['metadata']['name']} is on {row['spec']['nodeName']}" in why.out
    assert "SCORE" in why.out
    assert why.out.count("* n") == 2
    data = site.korch("why", "reason", "-o", "json").data()
    assert [one["decision"]["node"] for one in data] == [one["node"] for one in data]
    before = births(site.containers())
    ahead = site.korch("whatif", "reason", "--replicas", "8")
    assert "Everything fits." in ahead.out
    assert "(2 stand, 6 new)" in ahead.out
    lost = site.korch("whatif", "--lose", "n2", status=None)
    moved = {one["metadata"]["name"] for one in site.korch.objects("pods") if one["spec"]["nodeName"] == "n2"}
    assert f"Without n2: {len(moved)} pod(s) would move" in lost.out
    assert all(name in lost.out for name in moved)
    too_much = site.korch("whatif", "--replicas", "90", "--memory", "512Mi", status=9)
    assert re.search(r"0/3 nodes: .*lack( really free)? memory \(512Mi asked\)", too_much.out)
    assert births(site.containers()) == before


# --- manifests, logs, exec ---

MANIFEST = """\
apiVersion: v1
kind: Secret
metadata: {{name: password}}
stringData: {{word: "open\\nsesame"}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  labels: {{team: blue}}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: shop}}
  template:
    metadata:
      labels: {{app: shop}}
    spec:
      containers:
      - name: front
        image: {image}
        args: ["--greeting", "two words"]
        env:
        - {{name: WORD, valueFrom: {{secretKeyRef: {{name: password, key: word}}}}}}
        - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        ports: [{{containerPort: 8080}}]
        resources: {{limits: {{memory: 48Mi}}}}
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
"""


def test_a_manifest_as_for_kubectl(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "shop.yml"
    file.write_text(MANIFEST.format(image=site.image()))
    done = site.korch("apply", "-f", str(file))
    assert "secret/password created" in done.out
    assert "shop: 2 of 2 replicas run" in done.out
    found = site.of("shop")
    assert len(found) == 2
    for one in found:
        assert one.labels["korch.dev/container"] == "front"
        assert one.memory_limit == 48 << 20
        assert one.env["WORD"] == "open\nsesame"
        assert one.env["NODE"] == one.node
        assert one.arguments == ["--greeting", "two words"]
    again = site.korch("apply", "-f", str(file))
    assert "unchanged" in again.out
    assert births(site.of("shop")) == births(found)
    site.korch("delete", "-f", str(file))
    assert site.of("shop") == []


def test_logs_and_exec(site: Site) -> None:
    deploy(site, "talk", "--replicas", "2", "--health", "/healthz", "--port", "8080")
    pods = [pod["metadata"]["name"] for pod in site.korch.objects("pods", selector="app=talk")]
    merged = site.korch("logs", "talk")
    assert all(f"[{pod}] web 1 listens on port 8080" in merged.out for pod in pods)
    one = site.korch("logs", f"pod/{pods[0]}", "--tail", "1")
    assert len(one.out.splitlines()) == 1
    assert "[" not in one.out
    script = 'printf "%s|" "$@"; echo oops >&2; exit 7'
    words = ("a b", "'", '"', "$(id)", "-x", "", "new\nline", "ü")
    said = site.korch("exec", pods[1], "--", "sh", "-c", script, "sh", *words, status=7)
    assert said.out == "".join(f"{word}|" for word in words)
    assert said.err == "oops\n"
    piped = site.korch("exec", "-i", "deploy/talk", "--", "cat", stdin="in\nand out ü\0")
    assert piped.out == "in\nand out ü\0"
    missing = site.korch("exec", pods[0], "--", "no-such-program", status=None)
    assert missing.status in (126, 127)  # as the engines have it
    assert "no-such-program" in missing.all
    site.korch.fails("exec", "nobody", "--", "true", status=4, says=("nobody",))
    site.korch.fails("logs", "nobody", status=4, says=("nobody",))


# --- machines with nothing but busybox and the engine ---


def test_main_job_on_busybox_machines(bare_lab: Lab, tmp_path: Path) -> None:
    site = make_site(wiped(bare_lab), tmp_path / "bare")  # d1 with Docker, p1 with Podman
    before = site.foreign()
    values = {"NL": "two\nlines\n", "QUOTES": 'it\'s "$(id)" `x` \\ ; ü'}
    env = [word for name, value in values.items() for word in ("--env", f"{name}={value}")]
    ports = ("--port", "18080:8080")  # no two on one node
    common = (*ports, "--health", "/healthz", "--memory", "64Mi", *env)
    done = deploy(site, "web", "--replicas", "2", *common)
    assert [row[1] for row in sorted(done.rows(), key=lambda row: row[1])] == ["d1", "p1"]
    assert {page.split(" on ")[0] for page in answers(site, done)} == {"web version 1"}
    for one in site.of("web"):
        assert one.memory_limit == 64 << 20
        assert {name: one.env[name] for name in values} == values
    started = births(site.of("web"))
    assert "nothing to change" in deploy(site, "web", *common).out
    assert births(site.of("web")) == started
    rolled = deploy(site, "web", *common, version="2")
    assert {page.split(" on ")[0] for page in answers(site, rolled)} == {"web version 2"}
    site.korch.fails(
        "deploy", site.image("crash"), "--name", "web", *QUICK, *common, status=9, says=("cannot read", "Rolled back")
    )
    for row in rolled.rows():
        assert site.korch("exec", row[0], "--", "sh", "-c", "exit 5", status=5).all == ""
        assert "web 2 listens" in site.korch("logs", row[0]).out
    site.korch("delete", "web")
    assert site.containers() == []
    assert site.traces("web") == []
    assert site.foreign() == before
