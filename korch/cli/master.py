"""`korch master`: keep what was declared true."""

from __future__ import annotations

from typing import Any

import click

from korch.cli.base import cluster_options, current_settings, examples, global_options


@click.command(
    epilog=examples(
        "korch master                                  # in the foreground; Ctrl-C stops it, and no container",
        "korch master --api-address 0.0.0.0            # kubectl of other machines, with `korch kubeconfig`",
        "korch master --log-format json                # one JSON object a line, for a log collector",
        "korch master --fence 'vagrant halt --force'   # is called with a lost node's name before its data moves",
        "ansible-playbook playbooks/master.yml         # as a service of systemd",
    )
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How log lines look; they go to stderr.",
)
@click.option(
    "--fence",
    metavar="COMMAND",
    default="",
    help="Makes sure that a lost node is off; called with its name. Pods with data there move only after it.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Serve figures for Prometheus at http://127.0.0.1:PORT/metrics; 0, the default: no.",
)
@click.option(
    "--api-address",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Serve the API on this address or name of this machine; 0.0.0.0: on all.",
)
@click.option(
    "--api-port",
    type=click.IntRange(0, 65535),
    default=6443,
    show_default=True,
    metavar="PORT",
    help="The API's port; 0: any free one.",
)
@click.option("--api-name", "api_names", metavar="NAME", multiple=True, help="Clients also call the API by this name.")
@click.option("--no-api", is_flag=True, help="Serve no API.")
@cluster_options()
def master(log_format: str, fence: str, metrics_port: int, no_api: bool, **api: Any) -> None:
    """Keep what was declared true: restart what dies, replace what stood on a lost node, roll, drain, probe.

    Other commands then only write what they want and follow. Several masters may run on one state: one leads, the
    others wait. When it stops, nothing stops on the nodes, and nothing of korch stays there. It serves the API that
    kubectl speaks, to whom `korch kubeconfig` gave a credential.
    """
    import asyncio
    import logging
    import signal

    from korch.cli.logformat import set_up
    from korch.cli.process import collect_garbage

    set_up(log_format, logging.DEBUG if global_options().verbosity > 1 else logging.INFO)
    settings = current_settings()

    async def go() -> None:
        from korch.master.cluster import open_cluster
        from korch.master.master import serve

        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with open_cluster(settings) as cluster:
            for warning in cluster.hosts().warnings:
                click.echo(f"Warning: {warning}", err=True)
            beside = None
            if not no_api:
                from korch.cli.api import api_served

                beside = api_served(cluster, api["api_address"], api["api_port"], api["api_names"])
            await serve(cluster, stop, fence_command=fence, metrics_port=metrics_port, beside=beside)

    collect_garbage()
    asyncio.run(go())
