"""What was handed out, on record in the store: a certificate or token that is not there is worth nothing.

So one list shows all, and a revocation is the removal of a record. Of a token only the hash is kept; it is 256 random
bits, which no amount of hashing would make safer.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from korch.errors import ConflictError, NotFoundError, StoreError
from korch.store.base import Store

PREFIX = "/korch.dev/credentials/"
TOKEN_WORD = "korch"  # noqa: S105  (begins every token, so that scanners for leaked secrets find them)
_ID_BYTES, _SECRET_BYTES = 6, 32
_TRIES = 4
FORGET_AFTER_S = 30 * 86_400.0  # records of what expired stay so long, for who wonders why a login fails


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """One that was handed out. `id`: a certificate's serial number, or a part of the token. Times: Unix seconds."""

    id: str
    kind: Literal["certificate", "token"]
    user: str
    groups: tuple[str, ...]
    created: float
    expires: float
    digest: str = ""
    bound_to: str = ""  # the key of a record that has to stay, and the revision since which it has been there
    bound_since: int = 0
    bound_too: dict[str, int] = {}  # more of them


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, shown this once."""

    token: str
    credential: Credential

    def __repr__(self) -> str:
        """Without the token."""
        return f"Minted({self.credential.id})"


class Credentials:
    """The records. Any process on the store may add and remove them at any time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add_certificate(
        self, serial: str, user: str, groups: tuple[str, ...], *, now: float, expires: float
    ) -> Credential:
        """Put a certificate on record; only from then on is it accepted."""
        record = Credential(
            id=serial.lower(), kind="certificate", user=user, groups=groups, created=now, expires=expires
        )
        await self._store.put(PREFIX + record.id, msgspec.json.encode(record), expect=0)
        return record

    async def mint_token(
        self, user: str, groups: tuple[str, ...], *, now: float, ttl_s: float, bound_to: Mapping[str, int] | None = None
    ) -> Minted:
        """A new token for `user` in `groups`. `bound_to`: keys of records, and since when: it ends with any of them."""
        secret, bonds = secrets.token_hex(_SECRET_BYTES), dict(bound_to or {})
        first = next(iter(bonds), "")
        since = bonds.pop(first, 0)
        for _ in range(_TRIES):
            record = Credential(
                id=secrets.token_hex(_ID_BYTES),
                kind="token",
                user=user,
                groups=groups,
                created=now,
                expires=now + ttl_s,
                digest=_digest(secret),
                bound_to=first,
                bound_since=since,
                bound_too=bonds,
            )
            try:
                await self._store.put(PREFIX + record.id, msgspec.json.encode(record), expect=0)
            except ConflictError:
                continue
            return Minted(f"{TOKEN_WORD}_{record.id}_{secret}", record)
        raise ConflictError("no free id was found for a token", hint="Try it again.")

    async def find(self, id_: str) -> Credential | None:
        """The record, or None; also None when what it is bound to is gone."""
        found = await self._find(id_)
        if found is None or not found.bound_to:
            return found
        for key, since in ((found.bound_to, found.bound_since), *found.bound_too.items()):
            record = await self._store.get(key)
            if record is None or record.created != since:
                return None
        return found

    async def _find(self, id_: str) -> Credential | None:
        if not id_ or not id_.isalnum() or len(id_) > 64:
            return None
        found = await self._store.get(PREFIX + id_)
        return None if found is None else _decode(found.key, found.value)

    async def all(self) -> tuple[Credential, ...]:
        """All records, the oldest first."""
        listing = await self._store.list(PREFIX)
        return tuple(sorted((_decode(r.key, r.value) for r in listing.records), key=lambda one: one.created))

    async def revoke(self, id_: str) -> Credential:
        """Remove one; what is open with it ends within seconds. `NotFoundError`."""
        found = await self._find(id_.lower())
        if found is None:
            raise NotFoundError(f'there is no credential "{id_}"', hint="`korch token list` shows them.")
        await self._store.delete(PREFIX + found.id)
        return found

    async def forget_expired(self, now: float, *, after_s: float = 0.0) -> int:
        """Remove the records of those that have expired; how many."""
        old = [one for one in await self.all() if one.expires + after_s <= now]
        for one in old:
            await self._store.delete(PREFIX + one.id)
        return len(old)


class KnownCredentials:
    """Records by id, read from the store at most once a second each: what every request asks for."""

    FRESH_S = 1.0
    _MOST = 4096

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._known: dict[str, tuple[float, Credential]] = {}

    async def find(self, id_: str) -> Credential | None:
        """The record as it was a second ago at most, or None."""
        now = asyncio.get_running_loop().time()
        known = self._known.get(id_)
        if known is not None and now - known[0] < self.FRESH_S:
            return known[1]
        found = await self._credentials.find(id_)
        self._known.pop(id_, None)
        if found is not None:
            if len(self._known) >= self._MOST:
                self._known.clear()
            self._known[id_] = (now, found)
        return found


def split_token(token: str) -> tuple[str, str] | None:
    """(id, secret) of a token's text, or None when it is none of ours."""
    word, _, rest = token.partition("_")
    id_, _, secret = rest.partition("_")
    if word != TOKEN_WORD or len(id_) != 2 * _ID_BYTES or len(secret) != 2 * _SECRET_BYTES:
        return None
    return id_, secret


def fits(credential: Credential | None, secret: str) -> bool:
    """Whether the secret is that of the token; takes as long when there is no such token."""
    wanted = credential.digest if credential is not None and credential.kind == "token" else "0" * 64
    return hmac.compare_digest(_digest(secret), wanted)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _decode(key: str, value: bytes) -> Credential:
    try:
        return msgspec.json.decode(value, type=Credential)
    except msgspec.MsgspecError as error:
        raise StoreError(f"record {key} cannot be read: {error}", hint="Restore a backup.") from error
