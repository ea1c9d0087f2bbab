"""What the API asks of others: who may what, whose token it is, what containers use. All of it may be absent."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from korch.api.requestinfo import RequestInfo
from korch.client.base import Client, NodeUsage
from korch.resources.meta import Object


class User(Protocol):
    """Who asks."""

    @property
    def name(self) -> str:
        """Their name."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that their credential says."""
        ...


class Rule(Protocol):
    """Verbs on resources of groups, or on paths."""

    @property
    def verbs(self) -> tuple[str, ...]:
        """What may be done."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """API groups."""
        ...

    @property
    def resources(self) -> tuple[str, ...]:
        """Resources, as `pods/log`."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of what is no resource."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Only these objects; empty: all."""
        ...


class Authorizer(Protocol):
    """Says who may do what."""

    async def allowed(self, user: Any, info: RequestInfo) -> tuple[bool, str]:
        """Whether they may, and why."""
        ...

    async def rules(self, user: Any, namespace: str) -> Sequence[Rule]:
        """All that they may in a namespace."""
        ...

    async def check(self, user: Any) -> Callable[[Object, Object | None], None]:
        """What refuses an object, new and old, by which the user would give more than they have."""
        ...


class Streams(Protocol):
    """Serves what lasts: logs, exec, attach, port-forward of pods."""

    async def plain(self, request: Request, info: RequestInfo) -> Response:
        """The answer to a request without a WebSocket."""
        ...

    async def converse(self, socket: WebSocket, info: RequestInfo) -> None:
        """Serve a WebSocket. Raises what it is refused for before it was accepted, and nothing after."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """`user_of_token`: whose bearer token it is; `usage`: what containers use now, by node.

    `token` answers a TokenRequest (True: a dry run); `client` does what korch's own client asks for beside objects.
    """

    authorizer: Authorizer | None = None
    user_of_token: Callable[[str], Awaitable[User | None]] | None = None
    usage: Callable[[], Awaitable[Sequence[NodeUsage]]] | None = None
    streams: Streams | None = None
    token: Callable[[RequestInfo, dict[str, Any], bool], Awaitable[dict[str, Any]]] | None = None
    client: Callable[[], Awaitable[Client]] | None = None


@dataclass(frozen=True, slots=True)
class Nobody:
    """Who asks when nobody stands at the door: only tests and loopback have no door."""

    name: str = "system:admin"
    groups: tuple[str, ...] = ("system:masters", "system:authenticated")
