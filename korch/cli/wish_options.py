"""The options that say what is to run: the same for `korch deploy` and `korch plan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[F], F], ...] = (
    click.argument("image", required=False),
    click.option("--name", metavar="NAME", help="Name of the app; default: the image's."),
    click.option(
        "--replicas", type=click.IntRange(0, 10_000), metavar="N", help="How many; default: as before, else 1."
    ),
    click.option(
        "-f", "--file", "files", multiple=True, metavar="FILE", help="korch.yml or Kubernetes YAML; `-` = stdin."
    ),
    click.option(
        "--port", "ports", multiple=True, metavar="[NODE:]PORT", help="Publish a port; alone = on a free one."
    ),
    click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Environment variable."),
    click.option(
        "--env-file", "env_files", multiple=True, metavar="FILE", help="Environment that is kept as a Secret."
    ),
    click.option("--volume", "volumes", multiple=True, metavar="SOURCE:PATH", help="Named volume or path of the node."),
    click.option("--cpu", metavar="AMOUNT", help="CPU asked for, such as 250m."),
    click.option("--memory", metavar="AMOUNT", help="Memory asked for, and the limit, such as 64Mi."),
    click.option("--command", metavar="WORDS", help="Arguments instead of the image's, split as a shell would."),
    click.option(
        "--node-selector", "selectors", multiple=True, metavar="LABEL=VALUE", help="Only nodes with this label."
    ),
    click.option("--health", metavar="PATH", help="HTTP path that answers 200 when a replica is ready."),
    click.option(
        "--registry-auth", metavar="FILE", help="Engine configuration with credentials for the image's registry."
    ),
)


def wish_options(function: F) -> F:
    """Decorator: IMAGE, `-f` and the options that describe an app."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
