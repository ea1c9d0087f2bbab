"""`korch rollout`: status, history, undo, restart, pause and resume of an app."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run, timeout_option

if TYPE_CHECKING:
    from korch.client.base import Client
    from korch.resources.workload import DaemonSet, Deployment, PodTemplateSpec, ReplicaSet


@click.group(
    epilog=examples(
        "korch rollout status web", "korch rollout history web", "korch rollout undo web", "korch rollout pause web"
    )
)
def rollout() -> None:
    """Status, history, undo, restart, pause and resume of an app's rollouts."""


@rollout.command(short_help="Say how far a rollout is.", epilog=examples("korch rollout status web"))
@click.argument("app")
@namespace_option
@cluster_options()
def status(app: str, namespace: str) -> None:
    """Say how far a rollout is; exit 0 when it is done, 9 when it failed or goes on."""

    async def act(client: Client) -> bool:
        from korch.resources.podstate import condition
        from korch.resources.workload import Deployment

        if (daemonset := await _daemonset(client, app, namespace)) is not None:
            return _daemons_done(daemonset)
        found = await client.get(Deployment, _name(app), namespace)
        current = found.status
        progressing = condition(current.conditions, "Progressing")
        rolled = condition(current.conditions, "RolledBack")
        done = progressing is not None and progressing.reason == "NewReplicaSetAvailable"
        fresh = current.observed_generation == found.metadata.generation
        wanted = found.spec.replicas
        click.echo(
            f"{found.metadata.name}: {current.updated_replicas} of {wanted} replicas are up to date,"
            f" {current.available_replicas} are available"
        )
        if rolled is not None:
            click.echo(f"{rolled.reason} ({rolled.last_transition_time}): {rolled.message}")
        if not (done and fresh):
            click.echo("The wish is not true yet: `korch sync` goes on with it.")
        return done and fresh

    if not run(act, need_inventory=False):
        raise SystemExit(9)


@rollout.command(
    epilog=examples("korch rollout history web", "korch rollout history web --revision 3   # its whole pod template")
)
@click.argument("app")
@click.option("--revision", type=click.IntRange(1), metavar="N", help="Show the pod template of this one, as YAML.")
@namespace_option
@cluster_options()
def history(app: str, revision: int | None, namespace: str) -> None:
    """List the revisions that an app can go back to."""

    async def show_one(client: Client, wanted: int) -> None:
        from korch.cli.output import dump
        from korch.controllers.deployment import template_of
        from korch.resources.codec import to_dict
        from korch.resources.workload import Deployment

        deployment = await client.get(Deployment, _name(app), namespace)
        found = _numbered(deployment, await _revisions(client, deployment), wanted)
        click.echo(dump(to_dict(replace_template(deployment, template_of(found)))["spec"]["template"], "yaml"))

    async def act(client: Client) -> None:
        if revision is not None:
            await show_one(client, revision)
            return
        import time

        from korch.cli.output import age, table
        from korch.resources.annotations import COMPLETED
        from korch.resources.images import PINNED
        from korch.resources.workload import Deployment

        deployment = await client.get(Deployment, _name(app), namespace)
        rows = []
        for found in await _revisions(client, deployment):
            notes = found.spec.template.metadata.annotations
            image = found.spec.template.spec.containers[0].image
            digest = notes.get(PINNED, "").rpartition("sha256:")[2][:12]
            rows.append(
                (
                    _revision(found),
                    "yes" if found.spec.replicas else "",
                    "yes" if found.metadata.annotations.get(COMPLETED) == "true" else "never",
                    f"{image} ({digest})" if digest else image,
                    age(found.metadata.creation_timestamp, time.time()),
                )
            )
        click.echo(table(rows, ("REVISION", "RUNS NOW", "RAN WELL", "IMAGE", "AGE")))

    run(act, need_inventory=False)


@rollout.command(
    short_help="Go back to an earlier revision.",
    epilog=examples("korch rollout undo web", "korch rollout undo web --to-revision 3"),
)
@click.argument("app")
@click.option("--to-revision", type=click.IntRange(1), metavar="N", help="Default: the last one that ran well.")
@timeout_option
@namespace_option
@limit_option
@cluster_options()
def undo(app: str, to_revision: int | None, timeout_s: int, namespace: str, limit: str) -> None:
    """Go back to an earlier revision; no argument is needed for the last one that ran well."""

    async def act(client: Client) -> bool:
        from korch.controllers.deployment import template_of
        from korch.resources.workload import Deployment

        deployment = await client.get(Deployment, _name(app), namespace)
        _refuse_paused(deployment)
        target = _target(deployment, await _revisions(client, deployment), to_revision)

        def change(found: Deployment) -> Deployment:
            return replace_template(found, template_of(target))

        return await _change(client, deployment, change, f"goes back to revision {_revision(target)}", timeout_s)

    if not run(act, limit=limit):
        raise SystemExit(9)


@rollout.command(epilog=examples("korch rollout restart web"))
@click.argument("app")
@timeout_option
@namespace_option
@limit_option
@cluster_options()
def restart(app: str, timeout_s: int, namespace: str, limit: str) -> None:
    """Replace all replicas by new ones, one at a time."""

    async def act(client: Client) -> bool:
        import time

        from msgspec.structs import replace

        from korch.resources.times import rfc3339
        from korch.resources.workload import Deployment

        stamp = rfc3339(time.time())
        deployment = await client.get(Deployment, _name(app), namespace)
        _refuse_paused(deployment)

        def change(found: Deployment) -> Deployment:
            meta = found.spec.template.metadata
            notes = {**meta.annotations, "kubectl.kubernetes.io/restartedAt": stamp}
            return replace_template(found, replace(found.spec.template, metadata=replace(meta, annotations=notes)))

        return await _change(client, deployment, change, "restarts", timeout_s)

    if not run(act, limit=limit):
        raise SystemExit(9)


@rollout.command(epilog=examples("korch rollout pause web    # what is deployed now waits", "korch rollout resume web"))
@click.argument("app")
@namespace_option
@cluster_options()
def pause(app: str, namespace: str) -> None:
    """Stop rolling.

    The replicas that run now stay, and dead ones are replaced by their like.
    """

    async def act(client: Client) -> None:
        _, changed = await _set_paused(client, app, namespace, True)
        word = "paused; `korch rollout resume` goes on" if changed else "is paused already"
        click.echo(f"deployment/{_name(app)} {word}")

    run(act, need_inventory=False)


@rollout.command(epilog=examples("korch rollout resume web"))
@click.argument("app")
@timeout_option
@namespace_option
@limit_option
@cluster_options()
def resume(app: str, timeout_s: int, namespace: str, limit: str) -> None:
    """Go on rolling, to what was declared last."""

    async def act(client: Client) -> bool:
        from korch.cli.rollout_view import follow
        from korch.client.declare import Declared

        made, changed = await _set_paused(client, app, namespace, False)
        click.echo(f"deployment/{made.metadata.name} {'resumed' if changed else 'is not paused'}")
        return await follow(client, [Declared(made, "configured")], timeout_s)

    if not run(act, limit=limit):
        raise SystemExit(9)


async def _daemonset(client: Client, app: str, namespace: str) -> DaemonSet | None:
    """The daemon set that is meant: by its kind, or by a name that no deployment has."""
    from korch.errors import NotFoundError
    from korch.resources.workload import DaemonSet, Deployment

    kind, slash, name = app.rpartition("/")
    if slash and kind not in ("daemonset", "daemonsets", "ds"):
        return None
    try:
        if not slash:
            await client.get(Deployment, name, namespace)
            return None
    except NotFoundError:
        pass
    try:
        return await client.get(DaemonSet, name, namespace)
    except NotFoundError:
        if slash:
            raise
        return None


def _daemons_done(found: DaemonSet) -> bool:
    """Says how far it is; whether it is done."""
    status = found.status
    wanted = status.desired_number_scheduled
    updated = wanted if found.spec.update_strategy.type == "OnDelete" else status.updated_number_scheduled
    click.echo(
        f"{found.metadata.name}: {status.updated_number_scheduled} of {wanted} pods are up to date,"
        f" {status.number_available} are available"
    )
    fresh = status.observed_generation == found.metadata.generation
    done = fresh and updated == status.number_available == wanted
    if not done:
        click.echo("The wish is not true yet: `korch sync` goes on with it.")
    return done


async def _set_paused(client: Client, app: str, namespace: str, value: bool) -> tuple[Deployment, bool]:
    """The deployment, and whether that was a change."""
    from msgspec.structs import replace

    from korch.resources.workload import Deployment

    changed = False

    def change(found: Deployment) -> Deployment | None:
        nonlocal changed
        changed = found.spec.paused != value
        return replace(found, spec=replace(found.spec, paused=value)) if changed else None

    return await client.modify(Deployment, _name(app), namespace, change), changed


def replace_template(deployment: Deployment, template: PodTemplateSpec) -> Deployment:
    """The deployment with another template."""
    from msgspec.structs import replace

    return replace(deployment, spec=replace(deployment.spec, template=template))


def _refuse_paused(deployment: Deployment) -> None:
    from korch.errors import ForbiddenError

    if deployment.spec.paused:
        name = deployment.metadata.name
        raise ForbiddenError(
            f'"{name}" is paused: nothing would be rolled out', hint=f"First: korch rollout resume {name}"
        )


async def _change(
    client: Client, deployment: Deployment, change: Callable[[Deployment], Deployment], what: str, timeout_s: int
) -> bool:
    from korch.cli.rollout_view import follow
    from korch.client.declare import Declared, tried_again

    meta = deployment.metadata
    made = await client.modify(type(deployment), meta.name, meta.namespace, lambda found: tried_again(change(found)))
    click.echo(f"deployment/{deployment.metadata.name} {what}")
    return await follow(client, [Declared(made, "configured")], timeout_s)


def _name(app: str) -> str:
    return app.removeprefix("deployment/").removeprefix("deploy/")


def _revision(found: ReplicaSet) -> int:
    from korch.controllers.rollout import revision_of

    return revision_of(found)


async def _revisions(client: Client, deployment: Deployment) -> list[ReplicaSet]:
    """The deployment's sets, the oldest revision first."""
    from korch.resources.workload import ReplicaSet

    sets = (await client.list(ReplicaSet, deployment.metadata.namespace)).items
    own = [one for one in sets if any(ref.uid == deployment.metadata.uid for ref in one.metadata.owner_references)]
    return sorted(own, key=_revision)


def _numbered(deployment: Deployment, sets: list[ReplicaSet], wanted: int) -> ReplicaSet:
    from korch.errors import NotFoundError

    found = next((one for one in sets if _revision(one) == wanted), None)
    if found is None:
        known = ", ".join(str(_revision(one)) for one in sets) or "none"
        raise NotFoundError(f'"{deployment.metadata.name}" has no revision {wanted}', hint=f"It has: {known}.")
    return found


def _target(deployment: Deployment, sets: list[ReplicaSet], wanted: int | None) -> ReplicaSet:
    from korch.controllers.rollout import current_set
    from korch.errors import NotFoundError
    from korch.resources.annotations import COMPLETED

    current = current_set(deployment, sets)
    others = [found for found in sets if current is None or found.metadata.uid != current.metadata.uid]
    if wanted is not None:
        return _numbered(deployment, sets, wanted)
    good = [one for one in others if one.metadata.annotations.get(COMPLETED) == "true"]
    if not good:
        hint = f"See `korch rollout history {deployment.metadata.name}`."
        raise NotFoundError(f'"{deployment.metadata.name}" has no earlier revision that ran well', hint=hint)
    return good[-1]
