"""The keys that values are sealed with: a small file outside the state, the newest key first.

A sealed value says which key it needs, and is bound to the key of its record: it opens nowhere else.
"""

import base64
import binascii
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from korch.errors import StoreError
from korch.resources.times import rfc3339
from korch.store.private import alone, keep_private, write_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MARK = b"\x00korch1\x00"  # no JSON begins like that
_ID_CHARS, _NONCE_BYTES, _KEY_BYTES = 8, 12, 32
_HEAD = len(_MARK) + _ID_CHARS + _NONCE_BYTES


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    key: str
    created: str


class _File(msgspec.Struct, frozen=True, kw_only=True):
    keys: tuple[_Key, ...]


class _Loaded(msgspec.Struct, frozen=True):
    """What the file held. `mark`: which file it was, and when it was written."""

    mark: tuple[int, int, int]
    ids: tuple[str, ...]
    ciphers: dict[str, "AESGCM"]


class Keyring:
    """Seals with the newest key in the file, and opens with any. Other processes may change the file at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: _Loaded | None = None

    def exists(self) -> bool:
        """Whether there is a key."""
        return self.path.exists()

    def newest(self) -> str:
        """The id of the key that is used for new values."""
        return self._load().ids[0]

    def seal(self, name: str, value: bytes) -> bytes:
        """The value, to be stored under the key `name` and nowhere else."""
        loaded = self._load()
        id_, nonce = loaded.ids[0].encode(), os.urandom(_NONCE_BYTES)
        return _MARK + id_ + nonce + loaded.ciphers[loaded.ids[0]].encrypt(nonce, value, _bound(name, id_))

    def open(self, name: str, value: bytes) -> bytes:
        """The value again; one that was never sealed is as it was."""
        from cryptography.exceptions import InvalidTag

        id_ = key_of(value)
        if not id_:
            return value
        cipher = self._load().ciphers.get(id_)
        if cipher is None:
            raise StoreError(
                f"{name} is sealed with key {id_}, which {self.path} does not hold", hint=_put_back(self.path)
            )
        nonce = value[_HEAD - _NONCE_BYTES : _HEAD]
        try:
            return cipher.decrypt(nonce, value[_HEAD:], _bound(name, id_.encode()))
        except InvalidTag as error:
            raise StoreError(
                f"{name} does not open with its key: it was damaged or moved", hint="Restore a backup."
            ) from error

    def add(self, *, now: float) -> str:
        """A new key, used from now on; its id. The older ones still open what they sealed."""
        with alone(self.path.with_name(self.path.name + ".lock")):
            return self._add(now)

    def make(self, *, now: float) -> None:
        """The first key, unless somebody else made it meanwhile."""
        with alone(self.path.with_name(self.path.name + ".lock")):
            if not self.exists():
                self._add(now)

    def forget_older(self) -> int:
        """Drop all keys but the newest; how many. What was sealed with them opens no more, in no backup either."""
        with alone(self.path.with_name(self.path.name + ".lock")):
            newest, *older = self._read().keys
            self._write((newest,))
            return len(older)

    def _add(self, now: float) -> str:
        key = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
        new = _Key(id=secrets.token_hex(_ID_CHARS // 2), key=key, created=rfc3339(now))
        self._write((new, *(self._read().keys if self.exists() else ())))
        return new.id

    def _write(self, keys: tuple[_Key, ...]) -> None:
        write_private(self.path, msgspec.json.format(msgspec.json.encode(_File(keys=keys))) + b"\n")

    def _read(self) -> _File:
        try:
            keep_private(self.path)
            found = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} is missing: Secrets cannot be read", hint=_put_back(self.path)) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path} cannot be read: {error}", hint=_put_back(self.path)) from error
        if not found.keys:
            raise StoreError(f"{self.path} holds no key", hint=_put_back(self.path))
        return found

    def _load(self) -> _Loaded:
        """The file's keys, read again when it has changed."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            facts = self.path.stat()
        except FileNotFoundError:
            facts = None
        mark = (facts.st_ino, facts.st_mtime_ns, facts.st_size) if facts is not None else (0, 0, 0)
        if self._loaded is None or self._loaded.mark != mark:
            keys = self._read().keys
            try:
                ciphers = {key.id: AESGCM(base64.b64decode(key.key, validate=True)) for key in keys}
            except (binascii.Error, ValueError) as error:
                raise StoreError(f"{self.path} holds what is no key", hint=_put_back(self.path)) from error
            self._loaded = _Loaded(mark, tuple(key.id for key in keys), ciphers)
        return self._loaded


def key_of(value: bytes) -> str:
    """The id of the key that a value is sealed with; "" for a plain one."""
    if not value.startswith(_MARK):
        return ""
    return value[len(_MARK) : len(_MARK) + _ID_CHARS].decode("ascii", "replace")


def _bound(name: str, id_: bytes) -> bytes:
    return id_ + b"\x00" + name.encode()


def _put_back(path: Path) -> str:
    return f"Put {path.name} back from the copy that belongs to this state."
