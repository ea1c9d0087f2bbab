"""Reading kubeconfigs as kubectl does: where the API is, whom to trust there, and how we are let in.

Several files are one configuration: of entries with one name the first counts, so does the first `current-context`.
Every mistake names its file and key. https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from korch.errors import InvalidError, NotFoundError

_MAKE_ONE = "`korch kubeconfig`, on the machine of the master, makes one."
_PROGRAMS = ("exec", "auth-provider")  # programs that make credentials
_PASSWORDS = ("username", "password")


@dataclass(frozen=True, slots=True)
class Access:
    """The way to an API. `authority` PEM, b"" = what this machine trusts; either certificate and key, or a token."""

    server: str
    source: str  # in words, for messages
    namespace: str = ""
    authority: bytes = b""
    server_name: str = ""  # that the server's certificate has, if it is not the URL's
    insecure: bool = False
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)

    def tls(self) -> ssl.SSLContext:
        """What a connection is made with. `InvalidError` for a certificate or key that is none."""
        try:
            context = ssl.create_default_context(cadata=self.authority.decode() if self.authority else None)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidError(f"{self.source}: certificate-authority holds no certificate") from error
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate:
            _load_pair(context, self)
        return context


def _load_pair(context: ssl.SSLContext, access: Access) -> None:
    """`ssl` reads keys from files only: this one is 0600, and gone afterwards."""
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="korch-") as file:
        file.write(access.key + b"\n" + access.certificate)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except (ssl.SSLError, OSError) as error:
            raise InvalidError(
                f"{access.source}: client-certificate and client-key do not belong together, or are none"
            ) from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One named entry, and the file that it stands in."""

    kind: str  # cluster, user, context
    name: str
    value: Mapping[str, Any]
    path: Path

    @property
    def title(self) -> str:
        """As messages name it."""
        return f'{self.path}: {self.kind} "{self.name}"'

    def text(self, key: str) -> str:
        """A value that is text, "" when it is missing."""
        found = self.value.get(key)
        if found is None:
            return ""
        if not isinstance(found, str):
            raise InvalidError(f"{self.title}: {key} is not text")
        return found

    def flag(self, key: str) -> bool:
        """A value that is true or false."""
        found = self.value.get(key, False)
        if not isinstance(found, bool):
            raise InvalidError(f"{self.title}: {key} is neither true nor false")
        return found

    def data(self, key: str) -> bytes:
        """What `KEY-data` holds in base64, else the file that `KEY` names, beside the kubeconfig; b"" for neither."""
        if text := self.text(f"{key}-data"):
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise InvalidError(f"{self.title}: {key}-data is not base64") from error
        return self.file(key)

    def file(self, key: str) -> bytes:
        """What stands in the file that `key` names; b"" when none is named."""
        if not (name := self.text(key)):
            return b""
        try:
            return (self.path.parent / Path(name).expanduser()).read_bytes()
        except OSError as error:
            raise InvalidError(f"{self.title}: {key} {name}: {(error.strerror or str(error)).lower()}") from error


@dataclass(frozen=True, slots=True)
class Config:
    """All files together. `entries`: by kind and name."""

    paths: tuple[Path, ...]
    current: str
    entries: Mapping[tuple[str, str], Entry]

    @property
    def files(self) -> str:
        """As messages name them."""
        return ", ".join(map(str, self.paths))

    def entry(self, kind: str, name: str, wanted_by: str) -> Entry:
        """The entry; `NotFoundError` names those that there are."""
        found = self.entries.get((kind, name))
        if found is None:
            others = sorted(other for known, other in self.entries if known == kind)
            hint = f"There is {', '.join(others)}." if others else _MAKE_ONE
            raise NotFoundError(f'{wanted_by}: there is no {kind} "{name}"', hint=hint)
        return found


def config_paths(given: str, environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The files to read: the one given, else those of KUBECONFIG, else kubectl's own."""
    if given:
        return (Path(given).expanduser(),)
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return tuple(Path(part).expanduser() for part in named or ["~/.kube/config"])


def read_config(paths: Sequence[Path], *, must_exist: bool) -> Config:
    """The configuration in these files; those that are missing are passed over, as long as one is there."""
    there = [path for path in paths if path.exists()]
    if not there or (must_exist and len(there) < len(paths)):
        missing = next(path for path in paths if path not in there)
        raise NotFoundError(f"there is no kubeconfig {missing}", hint=f"{_MAKE_ONE} Then name it: --kubeconfig FILE.")
    current, entries = "", dict[tuple[str, str], Entry]()
    for path in there:
        data = _read(path)
        said = data.get("current-context")
        if said is not None and not isinstance(said, str):
            raise InvalidError(f"{path}: current-context is not text")
        current = current or said or ""
        for kind in ("cluster", "user", "context"):
            for entry in _entries(path, kind, data.get(f"{kind}s")):
                entries.setdefault((kind, entry.name), entry)
    return Config(tuple(there), current, entries)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise InvalidError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or data.get("kind", "Config") != "Config":
        raise InvalidError(f"{path} is no kubeconfig", hint=_MAKE_ONE)
    return data


def _entries(path: Path, kind: str, listed: object) -> list[Entry]:
    found = []
    for number, one in enumerate(listed if isinstance(listed, list) else () if listed is None else (listed,)):
        where = f"{path}: {kind}s[{number}]"
        if not isinstance(listed, list) or not isinstance(one, dict):
            raise InvalidError(f"{path}: {kind}s is not a list of entries")
        name, value = one.get("name"), one.get(kind)
        if not isinstance(name, str) or not name:
            raise InvalidError(f"{where} has no name")
        if value is not None and not isinstance(value, dict):
            raise InvalidError(f'{where} "{name}": {kind} is not a mapping')
        found.append(Entry(kind, name, value or {}, path))
    return found


def access_of(config: Config, *, context: str = "", server: str = "") -> Access:
    """The way that a context says, the current one unless it is named; `server` in place of its URL."""
    name = context or config.current
    if not name:
        raise InvalidError(f"{config.files}: no current-context is set", hint="Name one: --context NAME.")
    wanted_by = config.files if context else f'{config.files}: current-context "{name}"'
    chosen = config.entry("context", name, wanted_by)
    for key in ("cluster", "user"):
        if not chosen.text(key):
            raise InvalidError(f"{chosen.title}: {key} is missing")
    cluster = config.entry("cluster", chosen.text("cluster"), chosen.title)
    user = config.entry("user", chosen.text("user"), chosen.title)
    if proxy := cluster.text("proxy-url"):
        raise InvalidError(f"{cluster.title}: proxy-url {proxy}: korch reaches the API directly only")
    url = checked_url(server, "--server") if server else checked_url(cluster.text("server"), f"{cluster.title}: server")
    certificate, key_data, token = _credential(user)
    return Access(
        server=url,
        source=f'{chosen.path}, context "{name}"',
        namespace=chosen.text("namespace"),
        authority=cluster.data("certificate-authority"),
        server_name=cluster.text("tls-server-name"),
        insecure=cluster.flag("insecure-skip-tls-verify"),
        certificate=certificate,
        key=key_data,
        token=token,
    )


def _credential(user: Entry) -> tuple[bytes, bytes, str]:
    """(certificate, key, token) of a user."""
    for key in (*_PROGRAMS, *_PASSWORDS):
        if key in user.value:
            raise InvalidError(f"{user.title}: {key}: korch knows certificates and tokens only", hint=_MAKE_ONE)
    certificate, key_data = user.data("client-certificate"), user.data("client-key")
    token = user.text("token") or user.file("tokenFile").decode("utf-8", "replace").strip()
    if bool(certificate) != bool(key_data):
        missing = "client-key" if certificate else "client-certificate"
        raise InvalidError(f"{user.title}: {missing} is missing")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidError(f"{user.title}: token is none: it holds what no token can")
    if not certificate and not token:
        raise InvalidError(f"{user.title}: no client-certificate and no token", hint=_MAKE_ONE)
    return certificate, key_data, token


def checked_url(url: str, where: str) -> str:
    """The URL without a slash at its end; `InvalidError` when no API can be there. Never without TLS."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "https" and parts.hostname and parts.path in ("", "/") and (parts.port or 443)
    except ValueError:
        fits = None
    if not fits or parts.query or parts.fragment or parts.username or not url.isprintable():
        raise InvalidError(
            f'{where}: "{url}" is no address of an API', hint="Write it like https://m1.example.com:6443"
        )
    return url.rstrip("/")
