"""Ports that are published on a free port of the node: the pod annotation `korch.dev/publish`, such as `80/tcp,53/udp`.

A fixed node port is `hostPort`, as in Kubernetes. There hostPort 0 means "not published", hence the annotation.
"""

from collections.abc import Iterable, Mapping

from korch.errors import InvalidError
from korch.resources.templates import PUBLISH_ANNOTATION

__all__ = ["PUBLISH_ANNOTATION", "publish_text", "published_ports"]


def published_ports(annotations: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    """(container port, "TCP" or "UDP") of every port that gets a free port of the node."""
    text = annotations.get(PUBLISH_ANNOTATION, "")
    return tuple(_port(part.strip()) for part in text.split(",")) if text.strip() else ()


def publish_text(ports: Iterable[tuple[int, str]]) -> str:
    """The annotation for such ports."""
    return ",".join(f"{number}/{protocol.lower()}" for number, protocol in ports)


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and protocol in ("tcp", "udp") and 1 <= int(number) <= 65535):
        raise InvalidError(f'"{text}" is not a container port to publish', hint="Write them like 80/tcp,53/udp.")
    return int(number), protocol.upper()
