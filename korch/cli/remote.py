"""The way to a cluster over HTTPS, from options, environment and kubeconfig. Imported only when that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from korch.client.kubeconfig import Access, access_of, config_paths, read_config

if TYPE_CHECKING:
    from korch.cli.base import Way
    from korch.client.base import Outcome
    from korch.client.http import HttpClient

_META = "korch.cli.access"


def access(way: Way) -> Access:
    """What the kubeconfig says; read once a call of the program."""
    read: dict[Way, Access] = click.get_current_context().meta.setdefault(_META, {})
    if way not in read:
        config = read_config(config_paths(way.kubeconfig), must_exist=bool(way.kubeconfig))
        read[way] = access_of(config, context=way.context, server=way.server)
    return read[way]


async def open_remote(way: Way) -> HttpClient:
    """A client of the API, which has answered; the caller closes it."""
    from korch.client.http import HttpClient

    client = HttpClient(access(way), follow=_follow)
    try:
        await client.meet()
    except BaseException:
        await client.close()
        raise
    return client


async def _follow(client: HttpClient, workloads: Any, **options: Any) -> tuple[Outcome, ...]:
    from korch.master.following import follow

    return await follow(client, workloads, **options)
