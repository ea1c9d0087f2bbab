"""From what a request shows to who asks: a client certificate, a bearer token, or (for admins) somebody to act as."""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, NamedTuple

from korch.api.security.credentials import Credential, KnownCredentials, fits, split_token
from korch.api.security.users import AUTHENTICATED, MASTERS, User, account_groups
from korch.errors import ForbiddenError
from korch.objects.values import Clock

_IMPERSONATE = b"impersonate-"


class Subject(NamedTuple):
    """The names in a certificate."""

    user: str
    groups: tuple[str, ...]
    serial: str


class Authenticator:
    """Knows who asks. None: nobody that we know."""

    def __init__(self, known: KnownCredentials, clock: Clock) -> None:
        self._known, self._clock = known, clock

    async def user_of(self, scope: MutableMapping[str, Any]) -> User | None:
        """Who sent this request. A token counts before a certificate, and a bad token is not made good by one."""
        token = bearer_token(scope["headers"])
        if token is not None:
            return await self.user_of_token(token)
        subject = subject_of(scope.get("peercert"))
        return None if subject is None else await self._user_of_certificate(subject)

    async def user_of_token(self, token: str) -> User | None:
        """Whose token this is."""
        parts = split_token(token)
        credential = await self._known.find(parts[0]) if parts is not None else None
        if parts is None or not fits(credential, parts[1]) or credential is None:
            return None
        return self._current(credential)

    async def _user_of_certificate(self, subject: Subject) -> User | None:
        """TLS has checked the signature; the record must be there too, and say the same."""
        credential = await self._known.find(subject.serial)
        if credential is None or credential.kind != "certificate":
            return None
        if (credential.user, set(credential.groups)) != (subject.user, set(subject.groups)):
            return None
        return self._current(credential)

    async def still_valid(self, user: User) -> bool:
        """Whether what the user came with still counts: for requests that last."""
        credential = await self._known.find(user.credential)
        return credential is not None and self._current(credential) is not None

    def _current(self, credential: Credential) -> User | None:
        if credential.expires <= self._clock.now():
            return None
        groups = (*credential.groups, AUTHENTICATED)
        return User(credential.user, groups, credential.id, credential.expires)


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The token of the Authorization header; "" for a header that holds none, None without that header."""
    for name, value in headers:
        if name == b"authorization":
            word, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if word.lower() == "bearer" else ""
    return None


def subject_of(peercert: Mapping[str, Any] | None) -> Subject | None:
    """User (CN) and groups (each O) of a certificate as Python's ssl shows it."""
    if not peercert:
        return None
    pairs = [pair for part in peercert.get("subject", ()) for pair in part]
    names = [value for key, value in pairs if key == "commonName"]
    groups = tuple(value for key, value in pairs if key == "organizationName")
    serial = str(peercert.get("serialNumber", "")).lower().lstrip("0")
    return Subject(names[0], groups, serial) if len(names) == 1 and serial else None


def impersonated(user: User, headers: Iterable[tuple[bytes, bytes]]) -> User:
    """The user that the request wants to act as, or `user`. `ForbiddenError` unless `user` may do everything."""
    wanted = [(name[len(_IMPERSONATE) :], value.decode("latin-1")) for name, value in headers if _is_act_as(name)]
    if not wanted:
        return user
    names = [value for word, value in wanted if word == b"user"]
    who = names[0] if names else ""
    if MASTERS not in user.groups:
        raise ForbiddenError(
            f'users "{who}" is forbidden: User "{user.name}" cannot impersonate resource "users" in API group ""'
            " at the cluster scope"
        )
    if len(names) != 1 or not who:
        raise ForbiddenError("acting as another needs exactly one name in Impersonate-User")
    groups = tuple(value for word, value in wanted if word == b"group") or account_groups(who)
    return replace(user, name=who, groups=(*dict.fromkeys((*groups, AUTHENTICATED)),), impersonator=user.name)


def _is_act_as(name: bytes) -> bool:
    return name.startswith(_IMPERSONATE)
