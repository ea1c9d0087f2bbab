"""`korch delete`: an app, or any other object."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, namespace_option, run, timeout_option

if TYPE_CHECKING:
    from korch.client.base import Client, Workload
    from korch.resources.meta import Object

    Target = tuple[type[Object], str, str]  # kind, name, namespace


@click.command(epilog=examples("korch delete web", "korch delete deploy/web pod/one-off", "korch delete -f web.yml"))
@click.argument("names", nargs=-1, metavar="[KIND] NAME...")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="What a manifest or korch.yml names.")
@timeout_option
@click.option("--no-wait", is_flag=True, help="Record the wish only; containers go with the next `korch sync`.")
@namespace_option
@cluster_options()
def delete(names: tuple[str, ...], files: tuple[str, ...], timeout_s: int, no_wait: bool, namespace: str) -> None:
    """Remove apps or other objects, with their containers.

    A bare NAME is a deployment. Named volumes stay on their nodes.
    """
    if not names and not files:
        raise click.UsageError("say what to delete: a name, KIND/NAME, or -f FILE")

    async def act(client: Client) -> bool:
        from korch.cli.rollout_view import converge

        workloads = await _remove(client, [*_targets(names, namespace), *_from_files(files, namespace)])
        if not workloads or no_wait:
            return True
        done = await converge(client, workloads, {}, timeout_s)
        await _drop_unused_secrets(client, workloads)
        return done

    if not run(act):
        raise SystemExit(9)


async def _remove(client: Client, targets: Sequence[Target]) -> list[Workload]:
    """Deletes all or, when one does not exist, none; the workloads whose containers are to go.

    A deleted pod of a deployment is replaced: the wait is for the whole app.
    """
    from korch.client.base import Workload
    from korch.resources.kinds import kind_of_type
    from korch.resources.pod import Pod
    from korch.resources.podstate import workload_name
    from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

    found = [await client.get(type_, name, space) for type_, name, space in targets]
    workloads = []
    for (type_, name, space), obj in zip(targets, found, strict=True):
        await client.delete(type_, name, space)
        click.echo(f"{kind_of_type(type_).name.lower()}/{name} deleted")
        if isinstance(obj, Deployment | ReplicaSet | DaemonSet | Pod):
            workloads.append(Workload(space, workload_name(obj)))
    return list(dict.fromkeys(workloads))


def _targets(names: tuple[str, ...], namespace: str) -> list[Target]:
    from korch.cli.refs import parse_refs
    from korch.errors import InvalidError
    from korch.resources.kinds import kind_named
    from korch.resources.workload import Deployment

    if not names:
        return []
    if "/" not in "".join(names):
        try:
            kind_named(names[0])
        except InvalidError:
            return [(Deployment, name, namespace) for name in names]
        if len(names) == 1:
            raise click.UsageError(f"say which: korch delete {names[0]} NAME")
    return [(ref.kind.type, name, namespace) for ref in parse_refs(names) for name in ref.names]


def _from_files(files: tuple[str, ...], namespace: str) -> Iterator[Target]:
    from korch.cli.files import manifest_files, manifests_in, read_text
    from korch.resources.shortform import is_short_form, load_apps
    from korch.resources.workload import Deployment
    from korch.resources.yamltree import load_trees

    for file in manifest_files(files):
        text, source = read_text(file)
        trees = load_trees(text, source)
        if trees and all(is_short_form(tree) for tree in trees):
            for app, _ in load_apps(text, source):
                yield Deployment, app.name, app.namespace or namespace
        else:
            for obj in manifests_in(text, source, namespace):
                yield type(obj), obj.metadata.name, obj.metadata.namespace


async def _drop_unused_secrets(client: Client, workloads: Sequence[Workload]) -> None:
    """Secrets that deploys made for these workloads and that no revision names any more. Others' may be brand-new."""
    from korch.client.base import Workload
    from korch.errors import NotFoundError
    from korch.resources.expand import unused_secrets, workload_of_secret
    from korch.resources.misc import Secret
    from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

    for space in sorted({workload.namespace for workload in workloads}):
        users: list[Deployment | ReplicaSet | DaemonSet] = list((await client.list(Deployment, space)).items)
        users += (await client.list(ReplicaSet, space)).items
        users += (await client.list(DaemonSet, space)).items
        for secret in unused_secrets((await client.list(Secret, space)).items, users):
            meta = secret.metadata
            if Workload(meta.namespace, workload_of_secret(secret)) in workloads:
                with contextlib.suppress(NotFoundError):
                    await client.delete(Secret, meta.name, meta.namespace)
