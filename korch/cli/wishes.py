"""What a person wishes for, from flags and files: read and checked here, made into objects once a cluster is open."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from korch.cli.files import manifests_in, read_text
from korch.client.base import Client
from korch.client.declare import new_token
from korch.errors import InvalidError, NotFoundError
from korch.resources.annotations import AUTO_ROLLBACK
from korch.resources.app import App, Health, parse_mount, parse_port
from korch.resources.env_file import parse_env_file
from korch.resources.expand import expand
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.names import dns_label_problem
from korch.resources.workload import Deployment

_WHOLE_WISH = "IMAGE and its options are the whole wish. A korch.yml keeps them together."
DEFAULT_FILES = ("korch.yml", "korch.yaml")


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """The options of `korch deploy`, as click gives them."""

    image: str | None
    name: str | None
    replicas: int | None
    files: tuple[str, ...]
    ports: tuple[str, ...]
    env: tuple[str, ...]
    env_files: tuple[str, ...]
    volumes: tuple[str, ...]
    cpu: str | None
    memory: str | None
    command: str | None
    selectors: tuple[str, ...]
    health: str | None
    registry_auth: str | None
    namespace: str
    limit: str
    timeout_s: int = 120
    settle_s: int = 2
    no_wait: bool = False
    dry_run: bool = False
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """Apps in the short form, or manifests; `values` are where secrets come from."""

    options: DeployOptions
    apps: tuple[tuple[App, str], ...] = ()
    manifests: tuple[Object, ...] = ()
    values: Mapping[str, str] | None = None

    async def objects(self, client: Client) -> tuple[Object, ...]:
        """The objects, with what the cluster already has taken into account."""
        found: list[Object] = []
        for app, where in self.apps:
            known = (await client.list(Secret, app.namespace)).items
            old = await _standing(client, app)
            kept = old.spec.replicas if old is not None and app.replicas is None else app.replicas
            meant = msgspec.structs.replace(app, replicas=kept)
            expanded = expand(meant, values=self.values, known=known, token=new_token(), where=where)
            if self.options.image and old is not None and (gone := settings_gone(old, expanded.deployment)):
                click.echo(f"Warning: {app.name} had {gone}, which this command takes away: {_WHOLE_WISH}", err=True)
            found.extend(expanded.objects)
        from korch.cli.registry_auth import with_registry_secrets

        marked = [self._marked(obj) for obj in (*found, *self.manifests)]
        return await with_registry_secrets(client, marked, self.options.registry_auth)

    def expanded(self) -> tuple[Object, ...]:
        """The objects as a dry run shows them, without looking at a cluster."""
        found: list[Object] = []
        for app, where in self.apps:
            found.extend(expand(app, values=self.values, token="new", where=where).objects)  # noqa: S106
        return tuple(self._marked(obj) for obj in (*found, *self.manifests))

    def _marked(self, obj: Object) -> Object:
        """What `korch deploy` adds to every deployment: settling time, deadline, going back by itself."""
        if not isinstance(obj, Deployment):
            return obj
        struct = msgspec.structs.replace
        spec = struct(
            obj.spec,
            min_ready_seconds=obj.spec.min_ready_seconds or self.options.settle_s,
            progress_deadline_seconds=self.options.timeout_s,
        )
        if self.options.replicas is not None:
            spec = struct(spec, replicas=self.options.replicas)
        notes = {**obj.metadata.annotations, AUTO_ROLLBACK: "true"}
        return struct(obj, metadata=struct(obj.metadata, annotations=notes), spec=spec)


async def _standing(client: Client, app: App) -> Deployment | None:
    """The deployment of the app as it is now, if there is one."""
    try:
        return await client.get(Deployment, app.name, app.namespace)
    except NotFoundError:
        return None


def settings_gone(old: Deployment, new: Deployment) -> str:
    """What the old wish says and the new one is silent about: `ports and a health check`, or ""."""

    def said(deployment: Deployment) -> dict[str, bool]:
        spec = deployment.spec.template.spec
        main = spec.containers[0]
        return {
            "ports": bool(main.ports),
            "an environment": bool(main.env or main.env_from),
            "volumes": bool(main.volume_mounts),
            "a health check": main.readiness_probe is not None,
            "resources": bool(main.resources.requests or main.resources.limits),
            "a command": bool(main.command or main.args),
            "constraints": bool(spec.node_selector or spec.affinity),
        }

    now = said(new)
    gone = [name for name, was in said(old).items() if was and not now[name]]
    return " and ".join(filter(None, (", ".join(gone[:-1]), *gone[-1:])))


def read_wish(options: DeployOptions) -> Wish:
    """The wish of one call; every mistake in files and flags comes out here, before anything is contacted."""
    values = {**os.environ, **_env_file_values(options.env_files)}
    if options.image is not None:
        if options.files:
            raise click.UsageError("give an image or -f, not both")
        app = _app_from_flags(options, App(name=_name_for(options), image=options.image))
        return Wish(options, apps=((app, ""),), values=values)
    return _wish_of_files(options, values)


def _wish_of_files(options: DeployOptions, values: Mapping[str, str]) -> Wish:
    from korch.resources.shortform import is_short_form, load_apps
    from korch.resources.yamltree import load_trees

    files = options.files or (_default_file(),)
    apps: list[tuple[App, str]] = []
    manifests: list[Object] = []
    for file in files:
        text, source = read_text(file)
        documents = load_trees(text, source)
        if all(is_short_form(found) for found in documents):  # an empty file too: it says what is missing
            apps.extend((_app_from_flags(options, app), where) for app, where in load_apps(text, source))
        else:
            manifests.extend(manifests_in(text, source, options.namespace))
    _check_flags(options, apps, manifests)
    return Wish(options, tuple(apps), tuple(manifests), values)


def _check_flags(options: DeployOptions, apps: Sequence[object], manifests: Sequence[Object]) -> None:
    if manifests and (options.env or options.ports or options.name or options.command or options.cpu or options.memory):
        raise click.UsageError("--name, --env, --port, --command, --cpu and --memory do not go with Kubernetes YAML")
    if len(apps) > 1 and options.name:
        raise click.UsageError("--name does not go with a file of several apps")


def _default_file() -> str:
    for name in DEFAULT_FILES:
        if Path(name).is_file():
            return name
    raise InvalidError(
        f"there is no korch.yml in {Path.cwd()}",
        hint="Name an image (korch deploy IMAGE --replicas 3), or write a korch.yml with name and image.",
    )


def _env_file_values(files: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for file in files:
        text, source = read_text(file)
        values |= parse_env_file(text, source)
    return values


def _name_for(options: DeployOptions) -> str:
    if options.name:
        return options.name
    assert options.image is not None
    last = options.image.split("@")[0].rsplit("/", 1)[-1].split(":")[0]
    if dns_label_problem(last):
        raise InvalidError(f'no name can be made of image "{options.image}"', hint="Give one with --name.")
    return last


def _app_from_flags(options: DeployOptions, app: App) -> App:
    """The app with what the flags say on top of it."""
    changes: dict[str, Any] = {}
    if options.namespace != "default" or not app.namespace:
        changes["namespace"] = options.namespace
    if options.name:
        changes["name"] = options.name
    if options.replicas is not None:
        changes["replicas"] = options.replicas
    if options.ports:
        changes["ports"] = tuple(parse_port(text) for text in options.ports)
    if options.volumes:
        changes["mounts"] = (*app.mounts, *(parse_mount(text) for text in options.volumes))
    if options.env:
        changes["env"] = {**app.env, **dict(_pair(text, "--env") for text in options.env)}
    if options.env_files:
        names = tuple(_env_file_values(options.env_files))
        changes["secrets"] = tuple(dict.fromkeys((*app.secrets, *names)))
    if options.cpu:
        changes["cpu"] = options.cpu
    if options.memory:
        changes["memory"] = options.memory
    if options.command is not None:
        changes["command"] = _words(options.command)
    if options.selectors:
        chosen = dict(_pair(text, "--node-selector") for text in options.selectors)
        changes["constraints"] = {**app.constraints, **{key: (value,) for key, value in chosen.items()}}
    if options.health:
        changes["health"] = Health(http=options.health)
    return msgspec.structs.replace(app, **changes)


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise InvalidError(f"--command {command!r}: {error}", hint="Balance the quotes.") from error


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidError(f"{flag} {text!r} is not NAME=VALUE")
    return name, value


def show_dry_run(wish: Wish, options: DeployOptions) -> None:
    """The objects that would be declared; the values of Secrets stay hidden."""
    import json

    from korch.cli.output import to_yaml
    from korch.resources.codec import to_dict

    shown = []
    for obj in wish.expanded():
        data = to_dict(obj)
        if isinstance(obj, Secret):
            data["data"] = dict.fromkeys(obj.data, "(hidden)")
        shown.append(data)
    if options.output == "json":
        click.echo(
            json.dumps(shown[0] if len(shown) == 1 else {"apiVersion": "v1", "kind": "List", "items": shown}, indent=2)
        )
        return
    click.echo("---\n".join(to_yaml(data) for data in shown), nl=False)
