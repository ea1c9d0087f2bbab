"""Volumes of files: what a pod sees of ConfigMaps and Secrets, and how that comes to its node in real shells."""

import asyncio
import base64
import stat
from pathlib import Path
from typing import Any

import pytest

from korch.engines.run import KEPT_FILES
from korch.engines.run import run as run_words
from korch.engines.wish import File, FileVolume, Mount
from korch.errors import FencedError, InvalidError
from korch.nodes.files import Values, file_volumes, node_fields, uses, versions
from korch.nodes.machine import Machine
from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.resources.pod import (
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    HostPathVolumeSource,
    KeyProjection,
    KeyToPath,
    LocalObjectReference,
    ObjectFieldSelector,
    ProjectedVolumeSource,
    ResourceFieldSelector,
    ResourceRequirements,
    SecretKeySelector,
    SecretVolumeSource,
    Volume,
    VolumeMount,
    VolumeProjection,
)
from tests.unit.nodes.shells import SHELLS, ShellTransport
from tests.unit.nodes.test_scripts import CLUSTER, machine, wish
from tests.unit.nodes.test_wish import pod, secret, wish_of

MAP = ConfigMap(
    metadata=ObjectMeta(name="m", namespace="default", resource_version="1"),
    data={"a.conf": "x=1\n", "LEVEL": "debug"},
    binary_data={"blob": base64.b64encode(b"\0\xff").decode()},
)
VALUES = Values({"s": secret(PASSWORD=b"hunter2")}, {"m": MAP})
CONFIG = Volume(name="conf", config_map=ConfigMapVolumeSource(name="m", default_mode=0o644))


def mounted(volume: Volume, **mount: Any) -> Any:
    found = VolumeMount(name=volume.name, mount_path="/etc/x", **mount)
    return pod({"volume_mounts": (found,)}, volumes=(volume,))


def volumes_of(volume: Volume) -> tuple[FileVolume, ...]:
    return file_volumes(mounted(volume), VALUES, node_fields("n1", "10.0.0.1"))


def test_what_a_pod_says_of_itself() -> None:
    limits = ResourceRequirements(limits={"memory": "64Mi", "cpu": "1500m"})
    memory = ResourceFieldSelector(container_name="web", resource="limits.memory", divisor="1Mi")
    items = (
        DownwardAPIVolumeFile(path="labels", field_ref=ObjectFieldSelector(field_path="metadata.labels")),
        DownwardAPIVolumeFile(path="node", field_ref=ObjectFieldSelector(field_path="spec.nodeName"), mode=0o400),
        DownwardAPIVolumeFile(path="memory", resource_field_ref=memory),
    )
    found = pod({"resources": limits}, volumes=(Volume(name="v", downward_api=DownwardAPIVolumeSource(items=items)),))
    (volume,) = file_volumes(found, VALUES, node_fields("n1", "10.0.0.1"))
    assert [(one.path, one.mode, one.content) for one in volume.files] == [
        ("labels", 0o644, b'app="web"'),
        ("node", 0o400, b"n1"),
        ("memory", 0o644, b"64"),
    ]
    relabelled = with_meta(found, labels={"app": "other"})
    assert versions(found, VALUES) != versions(relabelled, VALUES)
    assert versions(mounted(CONFIG), VALUES) == versions(with_meta(mounted(CONFIG), labels={}), VALUES)
    cpu = EnvVarSource(resource_field_ref=ResourceFieldSelector(resource="limits.cpu"))
    env = wish_of(pod({"resources": limits, "env": (EnvVar(name="CPUS", value_from=cpu),)})).env
    assert env[0].value == "2"


def test_several_sources_in_one_volume() -> None:
    parts = (
        VolumeProjection(secret=KeyProjection(name="s", items=(KeyToPath(key="PASSWORD", path="secret/p"),))),
        VolumeProjection(config_map=KeyProjection(name="m", items=(KeyToPath(key="LEVEL", path="level"),))),
        VolumeProjection(config_map=KeyProjection(name="none", optional=True)),
    )
    (volume,) = volumes_of(Volume(name="v", projected=ProjectedVolumeSource(sources=parts, default_mode=0o440)))
    assert [(one.path, one.mode) for one in volume.files] == [("secret/p", 0o440), ("level", 0o440)]


def test_no_path_is_a_file_and_a_folder() -> None:
    items = (KeyToPath(key="LEVEL", path="a"), KeyToPath(key="LEVEL", path="a/b"))
    with pytest.raises(InvalidError, match='"a" is a file and a folder'):
        volumes_of(Volume(name="v", config_map=ConfigMapVolumeSource(name="m", items=items)))


def test_all_keys_are_files() -> None:
    (volume,) = volumes_of(CONFIG)
    assert {one.path: (one.mode, one.content) for one in volume.files} == {
        "a.conf": (0o644, b"x=1\n"),
        "LEVEL": (0o644, b"debug"),
        "blob": (0o644, b"\0\xff"),
    }


def test_some_keys_under_other_names_and_modes() -> None:
    items = (KeyToPath(key="PASSWORD", path="db/password", mode=0o400),)
    volume = Volume(name="keys", secret=SecretVolumeSource(secret_name="s", items=items))
    (found,) = volumes_of(volume)
    assert [(one.path, one.mode, one.content) for one in found.files] == [("db/password", 0o400, b"hunter2")]
    assert "hunter2" not in repr(found)


def test_what_is_missing_is_named_or_left_out() -> None:
    gone = Volume(name="v", config_map=ConfigMapVolumeSource(name="other"))
    key = Volume(name="v", secret=SecretVolumeSource(secret_name="s", items=(KeyToPath(key="no", path="no"),)))
    with pytest.raises(InvalidError, match='no ConfigMap "other"'):
        volumes_of(gone)
    with pytest.raises(InvalidError, match='Secret "s" has no key "no"'):
        volumes_of(key)
    for volume in (
        Volume(name="v", config_map=ConfigMapVolumeSource(name="other", optional=True)),
        Volume(name="v", secret=SecretVolumeSource(secret_name="s", items=key.secret.items, optional=True)),  # type: ignore[union-attr]
    ):
        assert volumes_of(volume) == (FileVolume("v"),)


def test_mounts_of_the_whole_and_of_a_part() -> None:
    assert wish_of(mounted(CONFIG), values=VALUES).mounts == (Mount("files", "/etc/x", "conf", True),)
    part = wish_of(mounted(CONFIG, sub_path="a.conf"), values=VALUES)
    assert part.mounts == (Mount("files", "/etc/x", "conf/..data/a.conf", True),)
    assert f"type=bind,source={KEPT_FILES}conf/..data/a.conf,target=/etc/x,readonly" in run_words("docker", part)
    host = Volume(name="h", host_path=HostPathVolumeSource(path="/srv/"))
    assert wish_of(mounted(host, sub_path="a/b")).mounts == (Mount("bind", "/etc/x", "/srv/a/b"),)


def test_config_maps_in_the_environment() -> None:
    source = EnvVarSource(config_map_key_ref=SecretKeySelector(name="m", key="LEVEL"))
    whole = EnvFromSource(prefix="M_", config_map_ref=LocalObjectReference(name="m"))
    found = wish_of(pod({"env": (EnvVar(name="A", value_from=source),), "env_from": (whole,)}), values=VALUES)
    assert {one.name: (one.value, one.secret) for one in found.env} == {
        "M_LEVEL": ("debug", False),
        "A": ("debug", False),
    }


def test_who_uses_what() -> None:
    other = with_meta(MAP, namespace="other")
    assert uses(mounted(CONFIG), MAP)
    assert not uses(mounted(CONFIG), other)
    assert not uses(mounted(CONFIG), Secret(metadata=ObjectMeta(name="m", namespace="default")))


# --- on the node ---

HOSTILE = (
    File("plain", 0o644, b"x\n\n"),
    File("empty", 0o600, b""),
    File(".hidden", 0o640, b"h"),
    File("in/side/a b'c\"$(id)", 0o444, b"\0\1\xff"),
)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> ShellTransport:
    return ShellTransport(tmp_path / "machine", request.param)


def volume_of(shell: ShellTransport, name: str = "conf", uid: str = "aaaaaaaa-1") -> Path:
    return shell.folder / "korch" / CLUSTER.id / "volumes" / uid / name


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What a container sees there: links are followed."""
    found = {}
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".."):
            found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
    return found


def _walk(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        found.append(path)
        if path.is_dir() and not path.name.startswith(".."):
            found += _walk(path)
    return found


def expected(*files: File) -> dict[str, tuple[int, bytes]]:
    return {one.path: (one.mode, one.content) for one in files}


async def started(shell: ShellTransport, *files: File) -> Machine:
    site = machine(shell)
    mount = Mount("files", "/etc/x", "conf", True)
    await site.start(wish(mounts=(mount,), files=(FileVolume("conf", files),)), epoch=1)
    return site


def test_files_are_there_before_the_container_and_in_no_argument(shell: ShellTransport) -> None:
    async def work() -> None:
        await started(shell, *HOSTILE)
        assert contents(volume_of(shell)) == expected(*HOSTILE)
        (call,) = shell.calls("run")
        assert f"type=bind,source={volume_of(shell)},target=/etc/x,readonly" in call["argv"]
        closed = volume_of(shell).parent.parent
        assert stat.S_IMODE(closed.stat().st_mode) == stat.S_IMODE(closed.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(volume_of(shell).stat().st_mode) == 0o755

    asyncio.run(work())


def test_a_change_comes_as_a_whole_and_what_is_gone_goes(shell: ShellTransport) -> None:
    async def work() -> None:
        site = await started(shell, *HOSTILE)
        inode = volume_of(shell).stat().st_ino
        new = (File("plain", 0o644, b"y"), File("more", 0o644, b"z"))
        for _ in range(2):
            await site.place("aaaaaaaa-1", [FileVolume("conf", new)], epoch=1)
            assert contents(volume_of(shell)) == expected(*new)
            assert volume_of(shell).stat().st_ino == inode
        assert sorted(path.name for path in volume_of(shell).iterdir()) == sorted(
            ["..data", f"..{FileVolume('conf', new).version}", "plain", "more"]
        )
        await site.place("aaaaaaaa-1", [FileVolume("conf")], epoch=1)
        assert contents(volume_of(shell)) == {}

    asyncio.run(work())


def test_what_an_end_half_way_left_is_made_whole(shell: ShellTransport) -> None:
    async def work() -> None:
        site = await started(shell, *HOSTILE)
        folder, new = volume_of(shell), FileVolume("conf", (File("plain", 0o644, b"y"),))
        (folder / "..new").mkdir()
        (folder / "..new" / "plain").write_text("half")
        (folder / "..link").symlink_to("..nowhere")
        (folder / "..data").unlink()
        await site.place("aaaaaaaa-1", [new], epoch=1)
        assert contents(folder) == expected(*new.files)

    asyncio.run(work())


def test_files_go_with_the_pod_and_none_are_made_for_one_that_is_gone(shell: ShellTransport) -> None:
    async def work() -> None:
        site = await started(shell, *HOSTILE)
        await site.remove(wish().identity, grace_s=1, epoch=1)
        assert not volume_of(shell).parent.exists()
        await site.place("aaaaaaaa-1", [FileVolume("conf", HOSTILE)], epoch=1)
        assert not volume_of(shell).parent.exists()

    asyncio.run(work())


def test_a_master_of_the_past_changes_no_files(shell: ShellTransport) -> None:
    async def work() -> None:
        site = await started(shell, *HOSTILE)
        await site.set_epoch(5)
        with pytest.raises(FencedError):
            await site.place("aaaaaaaa-1", [FileVolume("conf")], epoch=4)
        assert contents(volume_of(shell)) == expected(*HOSTILE)

    asyncio.run(work())
