"""`korch describe`: everything about one object, with its events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, namespace_option, run

if TYPE_CHECKING:
    from korch.client.base import Client
    from korch.resources.meta import Object
    from korch.resources.misc import Event
    from korch.resources.node import NodeLoad
    from korch.resources.pod import Pod


@click.command(
    epilog=examples(
        "korch describe pod web-5d4f8-x2x9k",
        "korch describe deploy/web node/n1",
        "korch describe nodes               # all of a kind",
    )
)
@click.argument("what", nargs=-1, required=True, metavar="KIND [NAME]... | KIND/NAME...")
@namespace_option
@click.option("-l", "--selector", metavar="SELECTOR", help="Only objects with these labels: app=web,tier!=db.")
@cluster_options()
def describe(what: tuple[str, ...], namespace: str, selector: str | None) -> None:
    """Show everything about objects, with their conditions and events; values of Secrets stay hidden."""
    from korch.cli.refs import parse_refs

    refs = parse_refs(what)
    if selector and any(ref.names for ref in refs):
        raise click.UsageError("Give names or a selector, not both.")

    async def show(client: Client) -> None:
        objects: list[Object] = []
        for ref in refs:
            scope = namespace if ref.kind.namespaced else ""
            if ref.names:
                objects += [await client.get(ref.kind.type, name, scope) for name in ref.names]
            else:
                objects += (await client.list(ref.kind.type, scope, selector=selector)).items
        if not objects:
            click.echo(f"No {' or '.join(ref.kind.plural for ref in refs)} found.", err=True)
        for index, obj in enumerate(objects):
            click.echo(("\n\n" if index else "") + await _text(client, obj))

    run(show, need_inventory=False)


async def _text(client: Client, obj: Object) -> str:
    from korch.cli.reasons import pointer
    from korch.cli.sheet import render
    from korch.cli.sheets import describe_object, events_block
    from korch.resources.node import Node

    now = time.time()
    pods: tuple[Pod, ...] = ()
    load: NodeLoad | None = None
    if isinstance(obj, Node):
        pods, load = await _on_node(client, obj.metadata.name)
    fields, events = describe_object(obj, now, pods=pods, load=load), await events_about(client, obj)
    more = pointer(event.reason for event in reversed(events) if event.type == "Warning")
    return render([*fields, ("Events", events_block(events, now))]) + (f"\n\n{more}" if more else "")


async def _on_node(client: Client, name: str) -> tuple[tuple[Pod, ...], NodeLoad | None]:
    """Pods that hold something on the node, and its newest sample."""
    from korch.resources.node import NodeLoad
    from korch.resources.pod import Pod

    pods = (await client.list(Pod)).items
    loads = (await client.list(NodeLoad)).items
    mine = tuple(p for p in pods if p.spec.node_name == name and p.status.phase not in {"Succeeded", "Failed"})
    return mine, next((load for load in loads if load.metadata.name == name), None)


async def events_about(client: Client, obj: Object) -> list[Event]:
    """Events of this very object (by uid: not those of a former one of that name), the newest last."""
    from korch.cli.columns import event_time
    from korch.resources.misc import Event

    found = (await client.list(Event, obj.metadata.namespace or "default")).items
    return sorted((e for e in found if e.involved_object.uid == obj.metadata.uid), key=event_time)
