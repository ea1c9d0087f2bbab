"""Sealed values: what is in the file, what opens, and what does not."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.errors import StoreError
from korch.objects.objects import Objects
from korch.resources.kinds import SECRET
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Secret
from korch.store import sealed as sealing
from korch.store.base import Put
from korch.store.keyring import Keyring, key_of
from korch.store.sealed import SealedStore
from korch.store.sqlite import open_sqlite

NOW = 1_800_000_000.0
PREFIX = SECRET.prefix()
NAME = f"{PREFIX}default/db"


@pytest.fixture(autouse=True)
def _no_stragglers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_STRAGGLERS_S", 0.0)


def with_store(folder: Path, body: Callable[[SealedStore, Keyring], Awaitable[None]]) -> None:
    async def main() -> None:
        keyring = Keyring(folder / "secrets.key")
        store = SealedStore(await open_sqlite(folder / "state.db"), keyring, (PREFIX,))
        try:
            await body(store, keyring)
        finally:
            await store.close()

    asyncio.run(main())


def on_disk(folder: Path) -> bytes:
    """All that the state's files hold."""
    return b"".join(path.read_bytes() for path in folder.glob("state.db*"))


def test_objects_see_plain_secrets_and_the_disk_none(tmp_path: Path) -> None:
    text = base64.b64encode(b"hunter2-hunter2").decode()

    async def body(store: SealedStore, keyring: Keyring) -> None:
        objects = Objects(store)
        await objects.ensure_default_namespace()
        made = await objects.create(Secret(metadata=ObjectMeta(name="db"), data={"password": text}))
        assert (await objects.get(Secret, "db")).data == {"password": text}
        assert (await objects.list(Secret)).items == (made,)
        changed = await objects.modify(
            Secret, "db", "default", lambda one: Secret(metadata=one.metadata, data={"a": text})
        )
        async with objects.watch(Secret, after=int(made.metadata.resource_version)) as changes:
            seen = await anext(changes)
        assert (seen.object, seen.previous) == (changed, made)
        await objects.delete(Secret, "db")
        found = await store.inner.list("/core/namespaces/")
        assert not any(key_of(record.value) for record in found.records)
        assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600

    with_store(tmp_path, body)
    assert text.encode() not in on_disk(tmp_path)


def test_plain_values_of_before_are_read_and_then_sealed(tmp_path: Path) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        await store.inner.put(NAME, b'{"plain":1}')
        found = await store.get(NAME)
        assert found is not None
        assert found.value == b'{"plain":1}'
        assert not keyring.exists()
        assert await store.reseal() == 1
        assert await store.reseal() == 0
        raw, found = await store.inner.get(NAME), await store.get(NAME)
        assert raw is not None
        assert found is not None
        assert key_of(raw.value) == keyring.newest()
        assert found.value == b'{"plain":1}'

    with_store(tmp_path, body)


def test_a_rotation_reseals_all_and_can_forget(tmp_path: Path) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        other = SealedStore(store.inner, Keyring(tmp_path / "secrets.key"), (PREFIX,))  # a master that runs meanwhile
        await store.txn([Put(f"{PREFIX}default/{n}", b"{%d}" % n) for n in range(5)])
        first = keyring.newest()
        old = (await store.inner.list(PREFIX)).records
        assert await store.rotate(forget_old=False) == 5
        assert keyring.newest() != first
        assert keyring.open(old[0].key, old[0].value) == b"{0}"  # a backup of before still opens
        assert await other.rotate(forget_old=True) == 5
        raw = (await store.inner.list(PREFIX)).records
        assert {key_of(record.value) for record in raw} == {keyring.newest()}
        assert [record.value for record in (await store.list(PREFIX)).records] == [b"{%d}" % n for n in range(5)]
        with pytest.raises(StoreError, match=first):
            keyring.open(old[0].key, old[0].value)
        assert len(json.loads((tmp_path / "secrets.key").read_text())["keys"]) == 1

    with_store(tmp_path, body)
    for record in sqlite3.connect(tmp_path / "state.db").execute("PRAGMA integrity_check"):
        assert record == ("ok",)


def test_a_lost_key_file_is_never_replaced_by_a_new_one(tmp_path: Path) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        await store.put(NAME, b"{}")
        lost = (tmp_path / "secrets.key").read_bytes()
        (tmp_path / "secrets.key").unlink()
        for attempt in (store.get(NAME), store.put(f"{NAME}2", b"{}"), store.put(NAME, b"{}"), store.reseal()):
            with pytest.raises(StoreError, match=r"secrets\.key") as caught:
                await attempt
            assert "secrets.key" in caught.value.hint
        (tmp_path / "secrets.key").write_bytes(lost)
        assert await store.get(NAME) is not None

    with_store(tmp_path, body)


@pytest.mark.parametrize("text", ["", "{}", '{"keys":[]}', '{"keys":[{"id":"a","key":"***","created":""}]}', "\x00"])
def test_a_damaged_key_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets.key").write_text(text)
    with pytest.raises(StoreError, match=r"secrets\.key"):
        Keyring(tmp_path / "secrets.key").seal("a", b"b")


def test_a_rotation_that_was_killed_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        await store.txn([Put(f"{PREFIX}default/{n}", b"{%d}" % n) for n in range(4)])
        keyring.add(now=NOW)  # and here it was killed
        await store.put(f"{PREFIX}default/2", b"{22}")
        assert [record.value for record in (await store.list(PREFIX)).records] == [b"{0}", b"{1}", b"{22}", b"{3}"]
        assert await store.reseal() == 3
        assert {key_of(one.value) for one in (await store.inner.list(PREFIX)).records} == {keyring.newest()}

    with_store(tmp_path, body)


def test_a_reseal_beside_a_writer_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        await store.put(NAME, b"{1}")
        keyring.add(now=NOW)
        seal = keyring.seal

        def and_meanwhile(name: str, value: bytes) -> bytes:
            monkeypatch.setattr(keyring, "seal", seal)
            writes.append(asyncio.ensure_future(store.put(NAME, b"{2}")))
            return seal(name, value)

        writes: list[asyncio.Future[int]] = []
        monkeypatch.setattr(keyring, "seal", and_meanwhile)
        await store.reseal()
        await asyncio.gather(*writes)
        found = await store.get(NAME)
        assert found is not None
        assert found.value == b"{2}"

    with_store(tmp_path, body)


def test_a_list_of_big_values(tmp_path: Path) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        values = [bytes([65 + n]) * 400_000 for n in range(4)]
        for n, value in enumerate(values):
            await store.put(f"{PREFIX}default/{n}", value)
        assert [record.value for record in (await store.list(PREFIX)).records] == values
        assert len((await store.list(PREFIX, limit=2)).records) == 2

    with_store(tmp_path, body)


def test_a_sealed_value_opens_nowhere_else(tmp_path: Path) -> None:
    async def body(store: SealedStore, keyring: Keyring) -> None:
        await store.put(f"{PREFIX}bank/gold", b"{}")
        raw = await store.inner.get(f"{PREFIX}bank/gold")
        assert raw is not None
        await store.inner.put(f"{PREFIX}mine/gold", raw.value)
        with pytest.raises(StoreError, match="damaged or moved"):
            await store.get(f"{PREFIX}mine/gold")

    with_store(tmp_path, body)


def test_every_changed_byte_shows(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "secrets.key")
    keyring.make(now=NOW)
    value = keyring.seal("a", b"secret")

    @given(st.integers(len(value) - 40, len(value) - 1), st.integers(1, 255))
    def one(place: int, change: int) -> None:
        damaged = value[:place] + bytes([value[place] ^ change]) + value[place + 1 :]
        with pytest.raises(StoreError):
            keyring.open("a", damaged)

    one()
    assert keyring.open("a", value) == b"secret"
    assert keyring.seal("a", b"secret") != value
