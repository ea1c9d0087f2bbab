"""`korch proxy`: the API as plain HTTP on this machine, for a browser or curl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from korch.cli.base import cluster_options, current_settings, examples, run_async

if TYPE_CHECKING:
    from korch.api.security.minting import Wish
    from korch.api.security.proxy import Upstream
    from korch.master.cluster import Cluster

_TTL_S = 24 * 3600.0


@click.command(
    epilog=examples(
        "korch proxy --role view",
        "curl http://127.0.0.1:8001/api/v1/namespaces/default/pods",
    )
)
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: any free one.")
@click.option(
    "--role", type=click.Choice(["admin", "edit", "view"]), default="admin", show_default=True, help="What it may do."
)
@click.option("-n", "--namespace", metavar="NAME", default="", help="Only in this namespace; default: everywhere.")
@click.option("--server", metavar="URL", default="", help="Where the API is; default: where it was served last.")
@cluster_options(remote=False)
def proxy(port: int, role: Any, namespace: str, server: str) -> None:
    """Serve the API at http://127.0.0.1:PORT until Ctrl-C, with a credential of its own that ends with it.

    Every user and program of this machine gets in by that door; pages of other sites in a browser do not.
    """
    from korch.api.security.minting import Wish

    wish = Wish("korch-proxy", role, namespace, _TTL_S, token=True)
    run_async(lambda: _serve(wish, port, server), endless=True)


async def _serve(wish: Wish, port: int, server: str) -> None:
    import asyncio

    from korch.api.security.credentials import Credentials
    from korch.api.security.proxy import Proxy, reach
    from korch.master.cluster import open_cluster

    async with open_cluster(current_settings(), need_inventory=False) as cluster:
        upstream, id_ = await _let_in(cluster, wish, server)
        try:
            await reach(upstream)
            door = Proxy(upstream)
            async with await door.serve(port) as listening:
                click.echo(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]} is {upstream.url} until Ctrl-C")
                while True:
                    await asyncio.sleep(_TTL_S / 2)
                    door.upstream, id_ = await _let_in(cluster, wish, server)  # the former one ends by itself
        finally:
            await Credentials(cluster.store).revoke(id_)


async def _let_in(cluster: Cluster, wish: Wish, server: str) -> tuple[Upstream, str]:
    """A way in with a new token, and the token's id."""
    import ssl

    from korch.api.security.minting import mint
    from korch.api.security.proxy import Upstream
    from korch.api.server import where

    url, now, pki = server or await where(cluster.store), cluster.clock.now(), cluster.settings.cluster_dir / "pki"
    access, record = await mint(cluster.store, pki, cluster.record.name, wish, now=now, server=url)
    return Upstream(url, ssl.create_default_context(cadata=access.authority.decode()), access.token), record.id
