"""`korch scale`: how many replicas an app has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, namespace_option, run, timeout_option

if TYPE_CHECKING:
    from korch.client.base import Client


@click.command(epilog=examples("korch scale web=5", "korch scale web=5 worker=2 --timeout 60"))
@click.argument("sizes", nargs=-1, required=True, metavar="APP=N...")
@timeout_option
@click.option("--no-wait", is_flag=True, help="Record the wish only.")
@namespace_option
@limit_option
@cluster_options()
def scale(sizes: tuple[str, ...], timeout_s: int, no_wait: bool, namespace: str, limit: str) -> None:
    """Change how many replicas an app has."""
    wanted = dict(_size(text) for text in sizes)

    async def act(client: Client) -> bool:
        from msgspec.structs import replace

        from korch.cli.rollout_view import follow
        from korch.client.declare import Declared, check_ports
        from korch.resources.workload import Deployment

        resized = []
        for name, count in wanted.items():
            old = await client.get(Deployment, name, namespace)
            resized.append(replace(old, spec=replace(old.spec, replicas=count)))
        await check_ports(client, resized)
        declared = []
        for new in resized:

            def change(found: Deployment, count: int = new.spec.replicas or 0) -> Deployment:
                return replace(found, spec=replace(found.spec, replicas=count))

            made = await client.modify(Deployment, new.metadata.name, namespace, change)
            click.echo(f"deployment/{new.metadata.name} scaled to {new.spec.replicas}")
            declared.append(Declared(made, "configured"))
        return no_wait or await follow(client, declared, timeout_s)

    if not run(act, limit=limit):
        raise SystemExit(9)


def _size(text: str) -> tuple[str, int]:
    from korch.errors import InvalidError

    name, equals, number = text.removeprefix("deployment/").removeprefix("deploy/").partition("=")
    if not equals or not name or not (number.isascii() and number.isdigit()) or int(number) > 10_000:
        raise InvalidError(f'"{text}" is not APP=N', hint="Write it like web=5; N is 0 to 10000.")
    return name, int(number)
