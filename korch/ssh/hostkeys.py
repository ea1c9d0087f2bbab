"""Is this key really the host's? known_hosts files read as OpenSSH reads them, and korch's own file beside them.

Formats: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: lists with `*`, `?` and `!`, `[host]:port`, hashed names, the markers
@cert-authority and @revoked. A line that cannot be read concerns nobody. Matching and judging are pure.
"""

import base64
import binascii
import fcntl
import fnmatch
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from korch.errors import HostKeyChangedError, HostKeyRevokedError, HostKeyUnknownError, StoreError

KEY_TYPES: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
_RSA_ALGORITHMS: Final = ("rsa-sha2-512", "rsa-sha2-256")  # SHA-1 is left out, as in OpenSSH since 8.8
_SHORT_NAMES: Final = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "ssh-dss": "DSA"}


class HostKey(msgspec.Struct, frozen=True):
    """A host's public key, as in known_hosts and on the wire."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh` shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii").rstrip("=")
        return f"SHA256:{digest}"

    @property
    def short_type(self) -> str:
        """As `ssh` calls it: ED25519, ECDSA, RSA."""
        return _SHORT_NAMES.get(self.type) or ("ECDSA" if self.type.startswith("ecdsa-") else self.type)


class KnownHost(msgspec.Struct, frozen=True):
    """One readable line of a known_hosts file."""

    names: str  # as written: patterns or a hashed name
    marker: Literal["", "@cert-authority", "@revoked"]
    key: HostKey
    place: str  # "/home/ann/.ssh/known_hosts:12"

    def is_for(self, name: str) -> bool:
        """Does the line speak of `name`, which is lower case and has its port when that is not 22?"""
        if self.names.startswith("|1|"):
            return _hash_matches(self.names, name)
        wanted = False
        for pattern in self.names.split(","):
            negated = pattern.startswith("!")
            if _pattern_matches(pattern.removeprefix("!").lower(), name):
                if negated:
                    return False
                wanted = True
        return wanted


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        _, _, salt, digest = hashed.split("|")
        wanted = base64.b64decode(digest)
        return hmac.compare_digest(hmac.digest(base64.b64decode(salt), name.encode(), "sha1"), wanted)
    except ValueError:
        return False


def _pattern_matches(pattern: str, name: str) -> bool:
    """OpenSSH knows `*` and `?` only; brackets are those of `[host]:port`."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def parse_known_hosts(text: str, path: str) -> list[KnownHost]:
    """The readable lines, in order."""
    known = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) < 3 or marker not in {"", "@cert-authority", "@revoked"}:
            continue
        try:
            key = HostKey(fields[1], base64.b64decode(fields[2], validate=True))
        except (binascii.Error, ValueError):
            continue
        known.append(KnownHost(fields[0], marker, key, f"{path}:{number}"))  # type: ignore[arg-type]
    return known


def algorithms(known: Sequence[KnownHost]) -> tuple[str, ...]:
    """What to ask the server for, best first: key types that are known come first, so that a known key is shown."""
    types = {line.key.type for line in known if not line.marker}
    order = sorted(KEY_TYPES, key=lambda kind: (kind not in types, KEY_TYPES.index(kind)))
    return tuple(name for kind in order for name in (_RSA_ALGORITHMS if kind == "ssh-rsa" else (kind,)))


class Verdict(msgspec.Struct, frozen=True):
    """What known_hosts says of a key, and the line that says so."""

    is_known: Literal["yes", "new", "changed", "revoked"]
    because: KnownHost | None = None


def judge(known: Sequence[KnownHost], key: HostKey) -> Verdict:
    """Judge a key by the lines that speak of its host.

    A key of another type than the known ones counts as changed: the server was asked for the known types first.
    """
    for line in known:
        if line.marker == "@revoked" and line.key == key:
            return Verdict("revoked", line)
    plain = [line for line in known if not line.marker]
    for line in plain:
        if line.key == key:
            return Verdict("yes", line)
    if plain:
        same_type = [line for line in plain if line.key.type == key.type]
        return Verdict("changed", (same_type or plain)[0])
    authority = [line for line in known if line.marker == "@cert-authority"]
    return Verdict("new", authority[0] if authority else None)


class KnownHosts:
    """The files of one destination, and korch's own, to which accepted keys are added."""

    def __init__(self, own: Path) -> None:
        self.own = own
        self._read: dict[str, tuple[tuple[int, int], list[KnownHost]]] = {}

    def lines_for(self, name: str, files: Iterable[str]) -> list[KnownHost]:
        """What korch's own file and `files` say of `name`. A name with a port is known by the bare name, too.

        The latter as OpenSSH does: only keys that match count then, so a line for port 22 never makes one "changed".
        """
        lines = [line for path in (str(self.own), *files) for line in self._lines(path)]
        found = [line for line in lines if line.is_for(name)]
        bare = re.fullmatch(r"\[(.+)\]:\d+", name)
        if bare and not any(not line.marker for line in found):
            found += [line for line in lines if line.is_for(bare[1]) and line not in found]
        return found

    def check(self, host: str, name: str, files: Iterable[str], key: HostKey, *, accept_new: bool) -> None:
        """Return when the key is the host's; else raise the `HostRefusedError` that says what is wrong with it."""
        known = self.lines_for(name, files)
        verdict = judge(known, key)
        if verdict.is_known == "changed" and not any(line.is_for(name) for line in known if not line.marker):
            verdict = Verdict("new")
        place = verdict.because.place if verdict.because else ""
        match verdict.is_known:
            case "yes":
                return
            case "revoked":
                raise HostKeyRevokedError(
                    f"{host}: its {key.short_type} key {key.fingerprint} is revoked ({place})",
                    host=host,
                    hint="Do not use that machine before its owner has given it a new host key.",
                )
            case "changed":
                raise HostKeyChangedError(
                    f"{host}: the host key changed: it shows {key.short_type} {key.fingerprint}, "
                    f"but {place} has {_shown(verdict.because)}",
                    host=host,
                    hint=f"If {host} was really set up anew: korch node trust {host}",
                )
            case "new" if accept_new:
                self.add(name, key)
            case "new":
                by = f"; {place} trusts a certificate authority, but it shows no certificate" if place else ""
                raise HostKeyUnknownError(
                    f"{host}: the host key is not known: {name} shows {key.short_type} {key.fingerprint}{by}",
                    host=host,
                    hint=f"Compare the fingerprint with the machine's, then: korch node trust {host}",
                )

    def add(self, name: str, key: HostKey) -> None:
        """Trust `key` for `name`: one line in korch's own file, in place of its older ones of that type."""
        self._rewrite(name, key, keep_others=True)

    def replace(self, name: str, key: HostKey) -> None:
        """Trust `key`, and nothing else that korch's own file had for `name`."""
        self._rewrite(name, key, keep_others=False)

    def _rewrite(self, name: str, key: HostKey, *, keep_others: bool) -> None:
        try:
            self.own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.own.with_name(self.own.name + ".lock"), "w", opener=_private) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                text = self.own.read_text("utf-8") if self.own.exists() else ""
                goes = {
                    line.place
                    for line in parse_known_hosts(text, str(self.own))
                    if not line.marker and line.names == name and (line.key.type == key.type or not keep_others)
                }
                kept = [f"{t}\n" for n, t in enumerate(text.splitlines(), 1) if f"{self.own}:{n}" not in goes]
                kept.append(f"{name} {key.type} {base64.b64encode(key.blob).decode('ascii')}\n")
                fresh = self.own.with_name(self.own.name + ".new")
                with open(fresh, "w", encoding="utf-8", opener=_private) as file:
                    file.writelines(kept)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(self.own)
        except OSError as error:
            raise StoreError(
                f"the host key of {name} cannot be kept in {self.own}: {error.strerror or error}",
                hint="Look at the rights of that folder and at the free space.",
            ) from error

    def _lines(self, path: str) -> list[KnownHost]:
        """The file's lines; read again only after it changed. A file that cannot be read is empty, as for ssh."""
        try:
            stat = os.stat(path)
            version = (stat.st_mtime_ns, stat.st_size)
            cached = self._read.get(path)
            if cached is None or cached[0] != version:
                text = Path(path).read_text("utf-8", "replace") if os.path.isfile(path) else ""
                cached = self._read[path] = (version, parse_known_hosts(text, path))
        except OSError:
            return []
        return cached[1]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _shown(line: KnownHost | None) -> str:
    return f"{line.key.short_type} {line.key.fingerprint}" if line else "another"
