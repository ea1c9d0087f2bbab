"""What the lab writes down: inventories, known_hosts, records, images."""

import io
import json
import sys
import tarfile
from gzip import decompress
from pathlib import Path

import pytest
import yaml

from korch.errors import ForbiddenError
from korch.lab import record as records
from korch.lab.demo import next_steps
from korch.lab.image import VERSIONS, sample_images
from korch.lab.inventory import inventory_text, known_hosts_text
from korch.lab.lab import Lab
from korch.lab.record import Record, claim_name, locked_folder, owner_of, read_record, release_name, write_record
from korch.lab.spec import LabStatus, NodeSpec, NodeStatus

SPECS = (NodeSpec("n1"), NodeSpec("b1", busybox=True), NodeSpec("p1", engine="podman"), NodeSpec("s1", engine="none"))
ADDRESSES = {"n1": "10.78.0.11", "b1": "10.78.0.12", "p1": "10.78.0.13", "s1": "10.78.0.14"}


def inventory(user: str) -> dict[str, dict[str, dict[str, dict[str, dict[str, object]]]]]:
    text = inventory_text(SPECS, ADDRESSES, key=Path("/k/id"), known_hosts=Path("/k/known"), user=user)
    value = yaml.safe_load(text)["all"]
    assert isinstance(value, dict)
    return value


def test_inventory_of_root() -> None:
    value = inventory("root")
    assert value["children"]["docker"]["hosts"] == {
        "n1": {"ansible_host": "10.78.0.11"},
        "b1": {"ansible_host": "10.78.0.12"},
    }
    assert set(value["children"]) == {"docker", "podman", "no_engine"}
    assert value["vars"] == {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": "/k/id",
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/k/known -o IdentitiesOnly=yes",
    }


def test_inventory_of_the_sudo_user_leaves_out_nodes_without_sudo() -> None:
    value = inventory("lab")
    assert list(value["children"]["docker"]["hosts"]) == ["n1"]
    assert value["vars"]["ansible_user"] == "lab"
    assert value["vars"]["ansible_become"] is True


def test_known_hosts_has_a_line_a_key() -> None:
    text = known_hosts_text({"10.78.0.11": ("ssh-ed25519 AAA", "ecdsa-sha2-nistp256 BBB")})
    assert text == "10.78.0.11 ssh-ed25519 AAA\n10.78.0.11 ecdsa-sha2-nistp256 BBB\n"


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    record = Record("10.78.7", (NodeSpec("n1", sshd_config=("MaxSessions 2",), cpus=0.5),), {"n1": 11})
    write_record(path, record)
    assert read_record(path) == record
    assert record.address("n1") == "10.78.7.11"


@pytest.mark.parametrize(
    "text", ["", "{half", "[]", "{}", '{"prefix": 1, "specs": [{"name": "n1", "odd": 1}], "numbers": {}}']
)
def test_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    assert read_record(tmp_path / "lab.json") is None


def test_one_name_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "OWNERS", tmp_path / "owners")
    mine, theirs = tmp_path / "a/labs/x", tmp_path / "b/labs/x"
    mine.mkdir(parents=True)
    assert owner_of("x") is None
    claim_name("x", mine)
    claim_name("x", mine)
    with pytest.raises(ForbiddenError, match="up already") as caught:
        claim_name("x", theirs)
    assert f"KORCH_HOME={tmp_path / 'a'}" in caught.value.hint
    mine.rmdir()  # its folder is gone, so the lab is too
    claim_name("x", theirs)
    assert owner_of("x") == theirs
    release_name("x")
    release_name("x")
    assert not (tmp_path / "owners").exists()


def test_locked_folder_may_be_removed_while_held(tmp_path: Path) -> None:
    folder = tmp_path / "deep/lab"
    with locked_folder(folder):
        folder.rmdir()
    with locked_folder(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_status_as_plain_values() -> None:
    status = LabStatus(
        "lab", "/i.yml", "10.78.0.1:5000/web:1", "10.78.0.1:5000", (NodeStatus("n1", "a", "off", "none"),)
    )
    value = json.loads(json.dumps(status.to_json()))
    assert value["nodes"] == [{"name": "n1", "address": "a", "state": "off", "engine": "none"}]


@pytest.fixture
def programs(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "busybox").write_bytes(b"BUSYBOX")
    (tmp_path / "tini").write_bytes(b"TINI")
    return tmp_path / "busybox", tmp_path / "tini"


def test_images_are_complete_and_share_their_base(programs: tuple[Path, Path]) -> None:
    images = {image.tag: image for image in sample_images(*programs, ("busybox", "sh", "nc"))}
    assert tuple(images) == VERSIONS
    base = {image.blobs[0].digest for image in images.values()}
    assert len(base) == 1
    assert len({image.manifest.digest for image in images.values()}) == len(VERSIONS)
    for image in images.values():
        manifest = json.loads(image.manifest.data)
        sent = {blob.digest: len(blob.data) for blob in image.blobs}
        for part in (manifest["config"], *manifest["layers"]):
            assert sent[part["digest"]] == part["size"]
        config = json.loads(next(blob for blob in image.blobs if blob.digest == manifest["config"]["digest"]).data)
        assert len(config["rootfs"]["diff_ids"]) == 2
        assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}


def test_images_are_the_same_when_made_again(programs: tuple[Path, Path]) -> None:
    first, second = (sample_images(*programs, ("sh",)) for _ in range(2))
    assert [image.manifest.digest for image in first] == [image.manifest.digest for image in second]


def test_base_layer_has_programs_and_links(programs: tuple[Path, Path]) -> None:
    image = sample_images(*programs, ("busybox", "sh", "nc"))[0]
    with tarfile.open(fileobj=io.BytesIO(decompress(image.blobs[0].data))) as tar:
        names = tar.getnames()
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("bin/busybox").isfile()  # not a link to itself
        assert tar.getmember("app/serve").mode & 0o111
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)


def test_next_steps_work_from_any_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab("lab", tmp_path)
    monkeypatch.delenv("KORCH_HOME", raising=False)
    text = next_steps(lab, lab.folder / "my app", "10.78.0.11")
    assert f"PATH={Path(sys.executable).parent}:$PATH KORCH_CLUSTER=lab\n" in text
    assert f"cd '{lab.folder}/my app'" in text
    assert "root@10.78.0.11" in text
    monkeypatch.setenv("KORCH_HOME", "/a b")
    assert "KORCH_CLUSTER=lab KORCH_HOME='/a b'" in next_steps(lab, lab.folder, "10.78.0.11")
