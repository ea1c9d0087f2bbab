"""Kubeconfig files: one context of ours added to whatever is there, which stays as it was."""

import base64
import copy
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from korch.errors import AlreadyExistsError, ConflictError, InvalidError
from korch.store.private import write_private

_LOCK_WAIT_S = 5.0
_EMPTY = {"apiVersion": "v1", "kind": "Config"}
_LISTS = ("clusters", "users", "contexts")


@dataclass(frozen=True, slots=True)
class Access:
    """A way to one cluster: what a kubeconfig holds. Either certificate and key, or a token."""

    context: str
    server: str
    authority: bytes
    namespace: str = ""
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file that kubectl reads first."""
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(named[0]).expanduser() if named else Path("~/.kube/config").expanduser()


def merged(config: Mapping[str, Any], access: Access, *, force: bool = False) -> dict[str, Any]:
    """The configuration with the context in it and current; all other entries as they were.

    `AlreadyExistsError` when entries of that name lead to another cluster, unless `force`.
    """
    result: dict[str, Any] = {**_EMPTY, **copy.deepcopy(dict(config))}
    before = _entry(result, "clusters", access.context).get("cluster") or {}
    taken = any(_entry(result, kind, access.context) for kind in _LISTS)
    if taken and not force and before.get("certificate-authority-data") != _text(access.authority):
        raise AlreadyExistsError(
            f'context "{access.context}" leads to another cluster; nothing was written',
            hint="Give this one another name with --context NAME, or replace that one: --force",
        )
    cluster = {"server": access.server, "certificate-authority-data": _text(access.authority)}
    user = (
        {"token": access.token}
        if access.token
        else {"client-certificate-data": _text(access.certificate), "client-key-data": _text(access.key)}
    )
    context = {"cluster": access.context, "user": access.context}
    if access.namespace:
        context["namespace"] = access.namespace
    for kind, value in zip(_LISTS, (cluster, user, context), strict=True):
        others = [one for one in result.get(kind) or [] if one.get("name") != access.context]
        result[kind] = [*others, {"name": access.context, kind[:-1]: value}]
    result["current-context"] = access.context
    return result


def write(path: Path, access: Access, *, force: bool = False) -> None:
    """Add the context to the file (0600), which is made if need be and replaced whole or not at all."""
    path = path.resolve()  # a link stays a link
    with _locked(path):
        config = read(path)
        write_private(path, render(merged(config, access, force=force)))


def render(config: Mapping[str, Any]) -> bytes:
    """As YAML."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode()


def read(path: Path) -> dict[str, Any]:
    """The configuration in a file, {} when there is none. `InvalidError` for what is no kubeconfig."""
    try:
        config = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} is not YAML: {str(error).splitlines()[0]}", hint=_OTHER_FILE) from error
    if config is None:
        return {}
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise InvalidError(f"{path} is no kubeconfig", hint=_OTHER_FILE)
    for kind in _LISTS:
        entries = config.get(kind) or []
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise InvalidError(f"{path} is no kubeconfig: {kind} is not a list of entries", hint=_OTHER_FILE)
    return config


_OTHER_FILE = "Nothing was written. Name another file with -o FILE."


def _entry(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    return next((one for one in config.get(kind) or [] if one.get("name") == name), {})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """kubectl's own lock: a file beside it that only one program can create."""
    lock, deadline = path.with_name(path.name + ".lock"), time.monotonic() + _LOCK_WAIT_S
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"{path} is locked by another program", hint=f"If none writes it now, remove {lock}."
                ) from None
            time.sleep(0.1)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            lock.unlink()
