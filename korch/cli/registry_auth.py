"""Registry credentials: found where the caller's engine keeps them, kept as a Secret of the workload that needs them.

So that a pull at night, on another node, does not need the person who deployed. Only the entry of the image's registry
is taken. Values go by files and pipes: never into a command line, a log line or a message.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from korch.client.base import Client
from korch.client.declare import new_token, pod_spec_of
from korch.engines.images import is_image_id, qualified
from korch.errors import InvalidError
from korch.resources.expand import APP_LABEL, MANAGED_BY, REGISTRY_ANNOTATION, REGISTRY_OF_LABEL
from korch.resources.kinds import SECRET
from korch.resources.meta import Object, ObjectMeta
from korch.resources.misc import Secret
from korch.resources.pod import LocalObjectReference
from korch.resources.validation import DOCKER_CONFIG_KEY, DOCKER_CONFIG_TYPE
from korch.resources.workload import Deployment, DeploymentSpec

HUB, HUB_KEY = "docker.io", "https://index.docker.io/v1/"  # the name of Docker Hub, and its key in config.json
_HUB_NAMES = {HUB, "index.docker.io", "registry-1.docker.io"}
HELPER_S = 15.0  # a helper may open a keychain, or ask a cloud


@dataclass(frozen=True, slots=True)
class Credentials:
    """One registry's entry of an engine's configuration."""

    registry: str
    entry: Mapping[str, str] = field(repr=False)

    def config(self) -> bytes:
        """An engine configuration with this entry alone; equal entries give equal bytes."""
        keys = (HUB, HUB_KEY) if self.registry == HUB else (self.registry,)
        return json.dumps({"auths": {key: dict(self.entry) for key in keys}}, sort_keys=True).encode()


async def with_registry_secrets(
    client: Client, objects: Sequence[Object], file: str | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Object, ...]:
    """The objects, each deployment with a Secret for its image's registry where the caller has credentials for it.

    A known Secret of the workload and registry keeps its name, so that fresh credentials make no rollout. `file` is
    what `--registry-auth` names; without it the engine's usual places are looked at.
    """
    sources = (Path(file),) if file else config_files(environ)
    configs = [(path, config) for path in sources if (config := read_config(path, needed=file is not None)) is not None]
    spaces = sorted({obj.metadata.namespace or "default" for obj in objects if isinstance(obj, Deployment)})
    secrets = [secret for space in spaces for secret in (await client.list(Secret, space)).items]
    known = [secret for secret in secrets if REGISTRY_OF_LABEL in secret.metadata.labels]
    if not configs and not known:
        return tuple(objects)
    found: list[Object] = []
    for obj in objects:
        if isinstance(obj, Deployment) and (file or not obj.spec.template.spec.image_pull_secrets):
            found += await _with_secret(obj, configs, known, needed_from=file)
        else:
            found.append(obj)
    return tuple(found)


async def _with_secret(
    deployment: Deployment, configs: Sequence[tuple[Path, Any]], known: Sequence[Secret], *, needed_from: str | None
) -> list[Object]:
    spec = pod_spec_of(deployment)
    image = spec.containers[0].image if spec is not None and spec.containers else ""
    if not image or is_image_id(image):
        return [deployment]
    registry = registry_of(image)
    old = _known_secret(deployment, registry, known)
    credentials = None
    for _, config in configs:
        credentials = credentials or await find_credentials(config, image)
    if credentials is None and needed_from:
        raise InvalidError(
            f'{needed_from} has no credentials for registry {registry}, which image "{image}" is in',
            hint=f"`docker login {registry}` writes them; its config.json is such a file.",
        )
    if credentials is None:
        if old is None:
            return [deployment]
        return [replace(deployment, spec=with_pull_secret(deployment.spec, old.metadata.name))]
    secret = registry_secret(deployment, credentials, old)
    return [secret, replace(deployment, spec=with_pull_secret(deployment.spec, secret.metadata.name))]


def _known_secret(deployment: Deployment, registry: str, known: Sequence[Secret]) -> Secret | None:
    meta = deployment.metadata
    mine = [
        secret
        for secret in known
        if secret.metadata.labels[REGISTRY_OF_LABEL] == meta.name
        and secret.metadata.namespace == (meta.namespace or "default")
        and secret.metadata.annotations.get(REGISTRY_ANNOTATION) == registry
    ]
    return max(mine, key=lambda secret: (secret.metadata.creation_timestamp or "", secret.metadata.name), default=None)


def registry_secret(deployment: Deployment, credentials: Credentials, old: Secret | None) -> Secret:
    """The Secret of a workload for one registry; under the name of the one that it has already."""
    meta = deployment.metadata
    name = old.metadata.name if old is not None else f"{meta.name}-registry-{new_token()}"
    return Secret(
        api_version=SECRET.api_version,
        kind=SECRET.name,
        metadata=ObjectMeta(
            name=name,
            namespace=meta.namespace,
            labels={APP_LABEL: meta.name, REGISTRY_OF_LABEL: meta.name, **MANAGED_BY},
            annotations={REGISTRY_ANNOTATION: credentials.registry},
        ),
        type=DOCKER_CONFIG_TYPE,
        data={DOCKER_CONFIG_KEY: base64.b64encode(credentials.config()).decode("ascii")},
    )


def with_pull_secret(spec: DeploymentSpec, name: str) -> DeploymentSpec:
    """The spec whose pods are pulled with the Secret of that name."""
    pods = replace(spec.template.spec, image_pull_secrets=(LocalObjectReference(name=name),))
    return replace(spec, template=replace(spec.template, spec=pods))


def registry_of(image: str) -> str:
    """`host[:port]` of an image's registry."""
    return qualified(image).partition("/")[0]


# Where engines keep them


def config_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Docker's configuration, then Podman's, each where its manual says (docker(1), containers-auth.json(5))."""
    home = Path(environ.get("HOME") or Path.home())
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}")
    given = [Path(environ["REGISTRY_AUTH_FILE"])] if environ.get("REGISTRY_AUTH_FILE") else []
    lasting = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    podman = runtime / ("containers/auth.json" if environ.get("XDG_RUNTIME_DIR") else "auth.json")
    return tuple(dict.fromkeys((docker, *given, podman, lasting)))


def read_config(path: Path, *, needed: bool) -> dict[str, Any] | None:
    """An engine's configuration; None when there is none. Only a file that was asked for must be there and whole."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            raise InvalidError(f"--registry-auth {path}: there is no such file") from None
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError) and not needed and not os.access(path.parent, os.X_OK):
            return None  # another user's folder, such as root's /run/containers: nothing in it is for this one
        why = "is not JSON" if isinstance(error, ValueError) else str(error.strerror or error)
        if needed:
            raise InvalidError(f"--registry-auth {path}: {why}", hint="It is an engine's config.json.") from error
        click.echo(f"Warning: registry credentials in {path} are not used: {why}", err=True)
        return None
    if not isinstance(config, dict):
        if needed:
            raise InvalidError(f"--registry-auth {path}: is not an engine's config.json")
        return None
    return config


async def find_credentials(config: Mapping[str, Any], image: str) -> Credentials | None:
    """The image's registry's entry: from its own helper, else from the helper for all, else from the file itself."""
    registry = registry_of(image)
    helpers = config.get("credHelpers")
    own = _best(helpers, image) if isinstance(helpers, dict) else None
    for helper in (own, config.get("credsStore")):
        if isinstance(helper, str) and helper:
            entry = await ask_helper(helper, HUB_KEY if registry == HUB else registry)
            if entry is not None:
                return Credentials(registry, entry)
    auths = config.get("auths")
    entry = _usable(_best(auths, image)) if isinstance(auths, dict) else None
    return None if entry is None else Credentials(registry, entry)


def _best(table: Mapping[str, Any], image: str) -> Any:
    """The value whose key names the image's registry, or most of its path (containers-auth.json(5)); None."""
    path = qualified(image).partition("@")[0]
    matches = [(key, value) for key, value in table.items() if _covers(_place(key), path)]
    return max(matches, key=lambda match: len(_place(match[0])), default=(None, None))[1]


def _place(key: str) -> str:
    """A key of a configuration as `host[:port][/path]`."""
    bare = key.partition("://")[2] or key
    for end in ("/", "/v1", "/v2"):
        bare = bare.removesuffix(end)
    host, slash, path = bare.partition("/")
    return f"{HUB if host in _HUB_NAMES else host}{slash}{path}"


def _covers(place: str, path: str) -> bool:
    """Whether an image's path is at or below a place; `host` is another registry than `host:5000`."""
    return path == place or path.startswith(f"{place}/") or ("/" in place and path.startswith(f"{place}:"))


def _usable(entry: Any) -> dict[str, str] | None:
    """What of an entry a pull needs; None for an empty one (its values are in a helper)."""
    if not isinstance(entry, dict):
        return None
    if entry.get("username") and "auth" not in entry:
        entry = {**entry, "auth": _pair(str(entry["username"]), str(entry.get("password", "")))}
    found = {key: str(entry[key]) for key in ("auth", "identitytoken", "registrytoken") if entry.get(key)}
    return found or None


def _pair(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


async def ask_helper(name: str, server: str) -> dict[str, str] | None:
    """The entry that `docker-credential-NAME get` gives; None when it has none. What it says is never repeated.

    The protocol is that of docker-credential-helpers: the server on stdin, JSON on stdout.
    """
    program = f"docker-credential-{name}"
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        click.echo(f"Warning: {program} cannot be run: {error.strerror or error}", err=True)
        return None
    try:
        async with asyncio.timeout(HELPER_S):
            out, _ = await process.communicate(server.encode())
    except TimeoutError:
        click.echo(f"Warning: {program} gave no answer for {HELPER_S:.0f} s; its credentials are not used", err=True)
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer = json.loads(out)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return None
    if process.returncode != 0 or not secret:
        return None
    return {"identitytoken": secret} if user == "<token>" else {"auth": _pair(user, secret)}
