"""`korch sync`: make what was declared true again, now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, limit_option, run, timeout_option

if TYPE_CHECKING:
    from korch.client.base import Client


@click.command(
    epilog=examples("korch sync", "# also replace what stood on nodes that are gone", "korch sync --failover")
)
@click.option("--failover", is_flag=True, help="Replace the replicas of nodes that cannot be reached.")
@timeout_option
@limit_option
@cluster_options()
def sync(failover: bool, timeout_s: int, limit: str) -> None:
    """Make what was declared true again: start what died, finish what was interrupted, remove what is surplus.

    Replicas on a node that cannot be reached stay as they are unless --failover is given. Then a node that comes back
    with old copies has them removed at the next contact.
    """

    async def act(client: Client) -> bool:
        from korch.cli.rollout_view import converge
        from korch.client.base import Workload
        from korch.resources.pod import Pod
        from korch.resources.podstate import workload_name
        from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

        if failover:
            for line in await client.fail_over():
                click.echo(line)
        objects = [
            *(await client.list(Deployment)).items,
            *(await client.list(ReplicaSet)).items,
            *(await client.list(DaemonSet)).items,
            *(await client.list(Pod)).items,
        ]
        workloads = list(dict.fromkeys(Workload(obj.metadata.namespace, workload_name(obj)) for obj in objects))
        if not workloads:
            click.echo("Nothing was declared yet.")
            return True
        since = {
            Workload(obj.metadata.namespace, obj.metadata.name): obj.metadata.generation
            for obj in objects
            if isinstance(obj, Deployment)
        }
        return await converge(client, workloads, since, timeout_s)

    if not run(act, limit=limit):
        raise SystemExit(9)
