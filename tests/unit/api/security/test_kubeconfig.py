"""Kubeconfig files: what is there stays."""

import asyncio
import os
import ssl
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from korch.api.security import kubeconfig
from korch.api.security.credentials import Credentials, split_token
from korch.api.security.kubeconfig import Access, default_path, merged, read, write
from korch.api.security.minting import Wish, context_name, mint
from korch.errors import AlreadyExistsError, ConflictError, InvalidError
from korch.store.sqlite import open_sqlite

NOW = 1_800_000_000.0
OURS = Access("korch-lab", "https://127.0.0.1:6443", b"ca", token="t0")

THEIRS = """\
apiVersion: v1
kind: Config
preferences: {colors: true}
current-context: prod
clusters:
- {name: prod, cluster: {server: https://prod:6443, certificate-authority-data: eHg=, proxy-url: http://p}}
users:
- name: prod
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: login, interactiveMode: Never}}
contexts:
- {name: prod, context: {cluster: prod, user: prod, namespace: shop, extensions: [{name: x, extension: {a: 1}}]}}
"""


def test_a_new_file_is_private_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config"
    os.umask(0o022)
    write(path, OURS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(path.read_text()) == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "korch-lab",
                "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": "Y2E="},
            }
        ],
        "users": [{"name": "korch-lab", "user": {"token": "t0"}}],
        "contexts": [{"name": "korch-lab", "context": {"cluster": "korch-lab", "user": "korch-lab"}}],
        "current-context": "korch-lab",
    }
    assert [one.name for one in path.parent.iterdir()] == ["config"]


def test_other_contexts_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(THEIRS)
    path.chmod(0o644)
    write(path, OURS)
    write(path, Access("korch-lab", "https://192.0.2.1:6443", b"ca", namespace="shop", certificate=b"c", key=b"k"))
    before, after = yaml.safe_load(THEIRS), yaml.safe_load(path.read_text())
    for kind in ("clusters", "users", "contexts"):
        assert after[kind][0] == before[kind][0]
        assert len(after[kind]) == 2
    assert after["preferences"] == {"colors": True}
    assert after["contexts"][1]["context"]["namespace"] == "shop"
    assert after["users"][1]["user"] == {"client-certificate-data": "Yw==", "client-key-data": "aw=="}
    assert path.stat().st_mode & 0o777 == 0o600


_NAMES = st.sampled_from(["a", "b", "korch-lab"])


@given(st.lists(_NAMES, unique=True), st.booleans(), _NAMES)
def test_any_mix_of_contexts_survives(names: list[str], force: bool, ours: str) -> None:
    config = {
        "clusters": [
            {"name": name, "cluster": {"server": name, "certificate-authority-data": "eHg="}} for name in names
        ],
        "users": [{"name": name, "user": {"token": name}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }
    access = Access(ours, "https://x", b"ca", token="t")
    if ours in names and not force:
        with pytest.raises(AlreadyExistsError):
            merged(config, access, force=force)
        return
    after = merged(config, access, force=force)
    for kind, entries in config.items():
        assert [one for one in after[kind] if one["name"] != ours] == [one for one in entries if one["name"] != ours]
        assert [one["name"] for one in after[kind]].count(ours) == 1
    assert merged(after, access) == after


@pytest.mark.parametrize("text", ["{", "[1]", "clusters: 5", "clusters: [a]", "kind: Pod", "\x00"])
def test_what_is_no_kubeconfig_stays_untouched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InvalidError, match="config"):
        write(path, OURS)
    assert path.read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["config"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "clusters: null\ncontexts: []\n"])
def test_an_empty_file_is_filled(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    write(path, OURS)
    assert read(path)["current-context"] == "korch-lab"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(THEIRS)
    (tmp_path / "config").symlink_to(tmp_path / "real")
    write(tmp_path / "config", OURS)
    assert (tmp_path / "config").is_symlink()
    assert len(read(tmp_path / "real")["contexts"]) == 2


def test_the_lock_of_another_program_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "_LOCK_WAIT_S", 0.0)
    (tmp_path / "config.lock").touch()
    with pytest.raises(ConflictError):
        write(tmp_path / "config", OURS)
    assert (tmp_path / "config.lock").exists()
    assert not (tmp_path / "config").exists()


def test_where_kubectl_looks() -> None:
    assert default_path({"KUBECONFIG": "/a/b:/c"}) == Path("/a/b")
    assert default_path({"KUBECONFIG": ":"}) == Path("~/.kube/config").expanduser()


def test_names_of_contexts() -> None:
    assert context_name("lab", "admin", "") == "korch-lab"
    assert context_name("lab", "view", "") == "korch-lab-view"
    assert context_name("lab", "admin", "shop") == "korch-lab-admin-shop"


def test_what_is_minted_is_on_record(tmp_path: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        try:
            for token in (False, True):
                wish = Wish("ann", "edit", "shop", 3600, token)
                server = "https://127.0.0.1:1"
                access, record = await mint(store, tmp_path / "pki", "lab", wish, now=NOW, server=server)
                assert await Credentials(store).find(record.id) == record
                assert (record.user, record.groups, record.expires) == ("ann", ("korch:edit:shop",), NOW + 3600)
                assert (access.context, access.namespace) == ("korch-lab-edit-shop", "shop")
                assert bool(access.token) is token
                assert access.token[-64:] not in repr(access) or not token
            assert (split_token(access.token) or ("",))[0] == record.id
            ssl.create_default_context(cadata=access.authority.decode())
        finally:
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wish", "server"),
    [
        (Wish("ann", "edit", "Shop", 3600), "https://a"),
        (Wish("system:x", "edit", "", 3600), "https://a"),
        (Wish("ann", "none", "", 3600, teams=("system:masters",)), "https://a"),
        (Wish("ann", "none", "", 3600, teams=("korch:edit",)), "https://a"),
        (Wish("ann", "none", "", 3600, teams=("",)), "https://a"),
        (Wish("ann", "edit", "", 1), "https://a"),
        (Wish("ann", "edit", "", 1e12), "https://a"),
        (Wish("ann", "edit", "", 3600), "http://a"),
        (Wish("ann", "edit", "", 3600), "a:6443"),
    ],
)
def test_what_cannot_be_minted_leaves_no_record(tmp_path: Path, wish: Wish, server: str) -> None:
    async def main() -> None:
        store = await open_sqlite(tmp_path / "state.db")
        try:
            with pytest.raises(InvalidError):
                await mint(store, tmp_path / "pki", "lab", wish, now=NOW, server=server)
            assert await Credentials(store).all() == ()
        finally:
            await store.close()

    asyncio.run(main())


def _add(place: tuple[str, int]) -> None:
    write(Path(place[0]), Access(f"c{place[1]}", "https://x", b"ca", token="t"))


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "config")
    with get_context("spawn").Pool(3) as pool:
        pool.map(_add, [(path, number) for number in range(9)], chunksize=3)
    assert {one["name"] for one in read(tmp_path / "config")["contexts"]} == {f"c{number}" for number in range(9)}
