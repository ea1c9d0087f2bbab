"""Images: sent without a registry, pulled from a private one, pruned when nothing needs them."""

import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from korch.lab.lab import Lab
from tests.lab.korch_cli import Korch, Site, folder_text, make_site, process_words

QUICK = ("--settle", "0")
USER, PASSWORD = "ann", "pa:ss w0rd"


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    return make_site(lab, tmp_path / "home")


def image_ids(site: Site, node: str) -> set[str]:
    """Ids of all images of a node, without `sha256:`."""
    text = site.shell(node, '"$1" images -a -q --no-trunc', site.engine(node))
    return {line.removeprefix("sha256:") for line in text.split()}


def drop_images(site: Site, *nodes: str) -> None:
    """As if the nodes (else all) had never seen any image but somebody else's."""
    script = """
        keep=$("$1" images -q --no-trunc foreign:1)
        for id in $("$1" images -a -q --no-trunc); do [ "$id" = "$keep" ] || "$1" rmi -f "$id" >/dev/null 2>&1; done; :
    """
    for node in nodes or site.nodes:
        site.shell(node, script, site.engine(node))


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Path]:
    """A Podman of this machine with a store of its own, holding `mine:dev`; the folder to put on PATH."""
    podman = shutil.which("podman")
    if podman is None:
        pytest.skip("no Podman on this machine")
    store, folder = Path(tempfile.mkdtemp(prefix="kp-")), tmp_path / "bin"  # Podman wants short paths
    folder.mkdir()
    wrapper = folder / "podman"
    wrapper.write_text(
        f'#!/bin/sh\nexec {podman} --root {store}/root --runroot {store}/run --storage-driver vfs "$@"\n'
    )
    wrapper.chmod(0o755)
    tree = tmp_path / "tree" / "bin"
    tree.mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "sleep")
    archive = tmp_path / "tree.tar"
    subprocess.run(["tar", "-C", str(tree.parent), "-cf", str(archive), "."], check=True)
    words = ["import", "-q", "--change", 'CMD ["/bin/sleep", "100000"]', str(archive), "localhost/mine:dev"]
    subprocess.run([str(wrapper), *words], check=True, capture_output=True)
    yield folder
    shutil.rmtree(store)


def with_path(korch: Korch, folder: Path) -> Korch:
    return korch.with_env(PATH=f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def test_an_image_of_this_machine_only_is_sent_deployed_and_pruned(site: Site, builder: Path) -> None:
    korch = with_path(site.korch, builder)
    before = {node: image_ids(site, node) for node in site.nodes}
    pushed = korch("image", "push", "mine:dev")
    assert pushed.out.count(": sent") == 3
    assert korch("image", "push", "mine:dev").out.count(": has it already") == 3
    (found,) = [line for line in korch("image", "list").out.splitlines() if "localhost/mine:dev" in line]

    korch("deploy", "mine:dev", "--name", "mine", "--replicas", "3", *QUICK)
    mine = site.of("mine")
    assert len(mine) == 3
    (id_,) = {str(one.data["Image"]).removeprefix("sha256:") for one in mine}
    assert id_[:12] in found
    assert "nothing to change" in korch("deploy", "mine:dev", "--name", "mine", *QUICK).out
    assert id_ not in korch("prune").out

    korch("delete", "mine")
    assert id_ not in korch("prune").out, "what people pushed stays until they forget it"
    korch("image", "forget", "mine:dev")
    korch("image", "forget", "localhost/mine:dev")
    assert korch("prune").out.count(id_) == 3
    assert {node: image_ids(site, node) for node in site.nodes} == before
    korch.fails("image", "push", "nobody:1", status=4, says=("not on this machine",))


def test_an_archive_is_sent_to_the_chosen_nodes(site: Site, tmp_path: Path) -> None:
    node = site.nodes[0]
    script = 'set -e; "$1" pull -q "$2" >/dev/null; "$1" tag "$2" saved:1; "$1" save -o /tmp/saved.tar saved:1'
    site.shell(node, script, site.engine(node), site.image())
    archive = tmp_path / "saved.tar"
    archive.write_bytes(site.lab.path_in(node, "/tmp/saved.tar").read_bytes())
    chosen = ",".join(site.nodes[1:])
    done = site.korch("image", "push", "--archive", str(archive), "--nodes", chosen)
    assert node not in done.out
    assert all(f"  {other}: " in done.out for other in site.nodes[1:])
    listed = site.shell(site.nodes[1], '"$1" images', site.engine(site.nodes[1]))
    assert "saved" in listed
    site.each_node(lambda one: site.shell(one, '"$1" rmi saved:1 2>/dev/null; :', site.engine(one)))


def test_an_archive_of_an_image_that_a_registry_has_leads_nobody_astray(site: Site) -> None:
    """Podman gives a loaded archive a digest of its own, which no registry has, beside the registry's."""
    node, engine = site.nodes[0], site.engine(site.nodes[0])
    for script in (
        '"$1" pull -q "$2" && "$1" save -o /tmp/web.tar "$2"',
        '"$1" rmi -f "$2" && "$1" load -i /tmp/web.tar',
    ):
        site.shell(node, script, engine, site.image())
    drop_images(site, *site.nodes[1:])
    done = site.korch("deploy", site.image(), "--name", "web", "--replicas", "3", *QUICK)
    assert {row[1] for row in done.rows()} == set(site.nodes)
    site.shell(node, '"$1" rm -f $("$1" ps -aq --filter label=korch.dev/uid); "$1" rmi -f "$2"', engine, site.image())


def test_a_private_image_is_pulled_with_the_callers_login_now_and_later(site: Site, tmp_path: Path) -> None:
    registry = site.lab.open_private_registry(USER, PASSWORD)
    image = f"{registry}/web:1"
    drop_images(site)
    refused = site.korch.fails("deploy", image, "--name", "private", *QUICK, status=8)
    assert "docker login" in refused.err or "--registry-auth" in refused.err
    assert site.korch.objects("deploy") == []

    folder = tmp_path / "docker"
    folder.mkdir()
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    other = base64.b64encode(b"other:secret").decode()
    config = {"auths": {registry: {"auth": pair}, "else.example": {"auth": other}}}
    (folder / "config.json").write_text(json.dumps(config))
    first = site.korch.with_env(DOCKER_CONFIG=str(folder))("deploy", image, "--name", "private", *QUICK)
    (secret,) = site.korch.objects("secrets")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    kept = base64.b64decode(secret["data"][".dockerconfigjson"]).decode()
    assert pair in kept
    assert other not in kept, "only the entry of the image's registry"
    (there,) = [row[1] for row in first.rows()]

    later = site.korch("deploy", image, "--name", "private", "--replicas", "3", *QUICK)  # nobody is logged in now
    assert {row[1] for row in later.rows()} == set(site.nodes) >= {there}
    assert len(site.korch.objects("secrets")) == 1

    shown = site.korch("events").out + later.out + site.korch("get", "pods", "-o", "yaml").out + process_words()
    for hidden in (pair, PASSWORD):
        assert hidden not in shown
        assert hidden not in folder_text(site.korch.home / "clusters" / "e2e" / "logs")
    traces = site.each_node(lambda node: site.shell(node, "ls -d /dev/shm/korch.* /run/korch.* 2>/dev/null; :"))
    assert traces == ["", "", ""]
    wishes = site.each_node(lambda node: site.shell(node, "cat /var/lib/korch/*/wishes/*"))
    assert all("private-registry-" in wish and pair not in wish for wish in wishes), "Secrets are kept by name only"
    site.korch("delete", "private")
    assert site.korch.objects("secrets") == []


def test_pruning_keeps_what_undo_needs_and_what_korch_did_not_bring(site: Site) -> None:
    drop_images(site)
    foreign = site.foreign()
    site.korch("deploy", site.image("1"), "--name", "web", "--replicas", "3", *QUICK)
    (old,) = {str(found.data["Image"]).removeprefix("sha256:") for found in site.of("web")}
    site.korch("deploy", site.image("2"), "--name", "web", *QUICK)
    site.korch("prune")
    assert all(old in image_ids(site, node) for node in site.nodes), "a revision on record needs it"
    site.korch("rollout", "undo", "web")
    assert {str(found.data["Image"]).removeprefix("sha256:") for found in site.of("web")} == {old}
    site.korch("delete", "web")
    pruned = site.korch("prune").out
    assert pruned.count(old) == 3
    assert not any(old in image_ids(site, node) for node in site.nodes)
    assert site.foreign() == foreign, "version 2 was there before korch came"
