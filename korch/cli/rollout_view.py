"""Carries out declared objects and shows it: live lines while it goes, and where the replicas run at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from korch.cli.edge import show_error
from korch.cli.live import rollout_view
from korch.client.base import Client, Outcome, Workload
from korch.client.declare import SILENT_S, Declared, check_names, check_ports, declare, pin_images, title
from korch.errors import ConflictError, NotFoundError
from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.batch import CronJob, Job
from korch.resources.kinds import kind_of
from korch.resources.meta import Object
from korch.resources.pod import ContainerPort, Pod
from korch.resources.podstate import is_ready, published_of, telling_status
from korch.resources.templates import template_hash
from korch.resources.workload import Deployment

NEEDS_MASTER = (Job, CronJob, HorizontalPodAutoscaler)  # they go on by themselves, for which a command is too short


async def carry_out(client: Client, objects: Sequence[Object], timeout_s: int, *, wait: bool) -> bool:
    """Declare, then wait; whether all is true in the end. Errors of a rollout are shown here."""
    await check_names(client, objects)
    loop = asyncio.get_running_loop()
    began = loop.time()
    pinned = await pin_images(client, objects, timeout_s=timeout_s, say=lambda text: click.echo(text, err=True))
    await check_ports(client, pinned)
    declared = await declare(client, pinned)
    for found in declared:
        click.echo(f"{title(found.obj)} {found.what}")
    idle = sorted({kind_of(found.obj).name for found in declared if isinstance(found.obj, NEEDS_MASTER)})
    if idle and not (await client.info()).has_master:
        click.echo(f"Note: {' and '.join(idle)}: nothing happens before a master leads (`korch master`).", err=True)
    workloads = {found.workload: found for found in declared if found.workload is not None}
    if not workloads:
        return True
    if not wait:
        click.echo("The wish is on record. `korch sync` makes it true.")
        return True
    pulled_s = loop.time() - began
    left_s = timeout_s if pulled_s < SILENT_S else max(1.0, timeout_s - pulled_s)
    return await follow(client, list(workloads.values()), left_s)


async def follow(client: Client, declared: Sequence[Declared], timeout_s: float) -> bool:
    """Wait for declared workloads."""
    since = {found.workload: found.since for found in declared if found.workload is not None}
    done = await converge(client, list(since), since, timeout_s)
    overtaken = [error for found in declared if (error := await _overtaken(client, found.obj)) is not None]
    for error in overtaken if done else []:
        show_error(error)
    return done and not overtaken


async def _overtaken(client: Client, meant: Object) -> ConflictError | None:
    """Set when another command changed the app while this one waited: what has come true is that wish, not this one."""
    if not isinstance(meant, Deployment):
        return None
    name = meant.metadata.name
    try:
        now = await client.get(Deployment, name, meant.metadata.namespace)
    except NotFoundError:
        return ConflictError(f'"{name}": another command deleted it meanwhile')
    same = now.metadata.uid == meant.metadata.uid
    if same and template_hash(now.spec.template) == template_hash(meant.spec.template):
        return None
    return ConflictError(
        f'"{name}": another command changed it meanwhile; what runs now is that newer wish, not this one',
        hint=f"Look with `korch rollout history {name}`; deploy again if this one is the right one.",
    )


async def converge(client: Client, workloads: Sequence[Workload], since: dict[Workload, int], timeout_s: float) -> bool:
    """Make workloads true and show it."""
    with rollout_view() as view:
        outcomes = await client.converge(workloads, since=since, timeout_s=timeout_s, on_progress=view.show)
    for outcome in outcomes:
        show_outcome(outcome)
    for note in dict.fromkeys(note for outcome in outcomes for note in outcome.notes):
        click.echo(f"Note: {note}", err=True)
    for outcome in outcomes:
        if outcome.error is not None:
            show_error(outcome.error)
    return all(outcome.error is None for outcome in outcomes)


def show_outcome(outcome: Outcome) -> None:
    """Where the replicas run and how to reach them."""
    from korch.cli.output import table

    ready = sum(is_ready(pod) for pod in outcome.pods)
    if outcome.error is None and not outcome.changed:
        click.echo(f"{outcome.workload}: nothing to change, {ready} of {len(outcome.pods)} replicas run")
    elif outcome.error is None and not outcome.pods:
        click.echo(f"{outcome.workload}: no replicas are left")
    elif outcome.error is None:
        click.echo(f"{outcome.workload}: {ready} of {len(outcome.pods)} replicas run")
    if outcome.pods:
        rows = [
            (pod.metadata.name, pod.spec.node_name or "-", _word(pod), " ".join(addresses(pod)) or "-")
            for pod in outcome.pods
        ]
        click.echo(table(rows, ("POD", "NODE", "STATE", "REACH IT AT")))


def _word(pod: Pod) -> str:
    if is_ready(pod):
        return "ready"
    status = telling_status(pod)
    if status is not None and status.state.waiting is not None:
        return status.state.waiting.reason
    return (pod.status.phase or "Pending").lower()


def addresses(pod: Pod) -> tuple[str, ...]:
    """Where the pod's published ports are reached; as a link where the web is spoken there."""
    seen = {}
    checked = _checked_by_http(pod)
    for port in published_of(pod):
        if ":" in port.host_ip and not pod.status.host_ip.count(":"):
            continue
        host = port.host_ip if port.host_ip not in {"", "0.0.0.0", "::"} else pod.status.host_ip  # noqa: S104
        place = f"{f'[{host}]' if ':' in host else host}:{port.host_port}"
        scheme = checked.get(port.container_port) or _usual_scheme(port)
        if port.protocol not in {"", "TCP"}:
            text = f"{place}/{port.protocol.lower()}"
        else:
            text = f"{scheme}://{place}" if scheme else place
        seen[port.container_port, port.protocol] = text
    return tuple(seen.values())


def _checked_by_http(pod: Pod) -> dict[int, str]:
    """Container port → http or https, as probes say it."""
    schemes: dict[int, str] = {}
    for container in pod.spec.containers:
        named = {port.name: port.container_port for port in container.ports if port.name}
        for probe in (container.liveness_probe, container.startup_probe, container.readiness_probe):
            if probe is not None and probe.http_get is not None:
                port = probe.http_get.port
                number = port if isinstance(port, int) else named.get(port, 0)
                schemes[number] = probe.http_get.scheme.lower() or "http"
    return schemes


def _usual_scheme(port: ContainerPort) -> str:
    """What most speak at that port; "" for nothing in particular."""
    if port.container_port in {443, 8443} or port.host_port == 443:
        return "https"
    is_web = port.container_port in {80, 3000} or 8000 <= port.container_port <= 8999 or port.host_port == 80
    return "http" if is_web else ""
