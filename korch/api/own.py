"""What korch's own client asks for and Kubernetes has no word for: looks at nodes, previews, exact images.

`GET /apis/korch.dev/v1/[namespaces/NS/]looks/NAME` and `POST .../acts/NAME` are calls of `korch.client.base.Client`, in
the form that `korch.client.forms` knows. Roles hold as for objects: looks are read, acts are created; what is not
inside a namespace is for who administers the cluster.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from korch.api.answers import bad_request, bytes_answer, no_resource, not_allowed
from korch.api.requestinfo import RequestInfo, truth
from korch.api.services import Services
from korch.client import forms
from korch.client.base import Client
from korch.resources.codec import from_dict
from korch.resources.defaults import DEFAULT_NAMESPACE
from korch.resources.kinds import kind_for
from korch.resources.meta import Object


class _Resolve(msgspec.Struct):
    image: str
    auth: str | None = None
    pull: bool = True
    of: dict[str, Any] | None = None


class _Preview(msgspec.Struct):
    objects: list[dict[str, Any]]


class _ForgetNode(msgspec.Struct):
    name: str
    force: bool = False


class _Prune(msgspec.Struct):
    orphans: frozenset[str] = frozenset()


class _Rebalance(msgspec.Struct):
    on: bool


class _Nothing(msgspec.Struct):
    pass


@dataclass(frozen=True, slots=True)
class _Act:
    """One act: what its body holds, and the call. `spaced`: asked for in a namespace (too)."""

    body: type[Any]
    run: Callable[[Client, Any, str], Awaitable[Any]]
    spaced: bool = False


async def _survey(client: Client, request: Request) -> Any:
    query = request.query_params
    return await client.survey(query.getlist("name"), measure_cpu=truth(query.get("cpu", "true")))


async def _resolve(client: Client, wish: _Resolve, _: str) -> str:
    try:
        auth = None if wish.auth is None else base64.b64decode(wish.auth, validate=True)
    except binascii.Error as error:
        raise bad_request("auth is not base64") from error
    of = None if wish.of is None else _object(wish.of)
    return await client.resolve_image(wish.image, auth=auth, pull=wish.pull, of=of)


async def _preview(client: Client, wish: _Preview, namespace: str) -> Any:
    objects = [_object(data) for data in wish.objects]
    for obj in objects:
        if namespace and (obj.metadata.namespace or DEFAULT_NAMESPACE) != namespace:
            raise bad_request("the namespace of an object does not match the namespace sent on the request")
    return await client.preview(objects)


def _object(data: dict[str, Any]) -> Object:
    version, kind = data.get("apiVersion"), data.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        raise bad_request("an object has no apiVersion or no kind")
    return from_dict(kind_for(version, kind), data)


_LOOKS: Mapping[str, Callable[[Client, Request], Awaitable[Any]]] = {
    "info": lambda client, _: client.info(),
    "survey": _survey,
    "usage": lambda client, _: client.usage(),
    "history": lambda client, request: client.load_history(_count(request.query_params.get("count", ""))),
    "orphans": lambda client, _: client.orphans(),
    "check": lambda client, request: client.check(request.query_params.get("name", "")),
}
_ACTS: Mapping[str, _Act] = {
    "resolve": _Act(_Resolve, _resolve, spaced=True),
    "preview": _Act(_Preview, _preview, spaced=True),
    "fail-over": _Act(_Nothing, lambda client, _wish, _space: client.fail_over()),
    "prune": _Act(_Prune, lambda client, wish, _: client.prune(orphans=wish.orphans)),
    "forget-node": _Act(_ForgetNode, lambda client, wish, _: client.forget_node(wish.name, force=wish.force)),
    "rebalance": _Act(_Rebalance, lambda client, wish, _: client.set_auto_rebalance(wish.on)),
}
_IN_SPACES = frozenset({"info"})  # looks that whoever may see a namespace may have
_ALONE = frozenset({"survey", "check", "orphans", "prune", "fail-over"})  # what changes how all nodes are seen
_MOST_SAMPLES = 10_000


class Own:
    """Answers these calls; those that go to all nodes one after the other."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._going = asyncio.Lock()

    async def answer(self, request: Request, info: RequestInfo) -> Response:
        """The answer to one call."""
        if self._services.client is None or info.subresource:
            raise no_resource()
        if request.query_params.get("dryRun"):
            raise bad_request("dryRun: these calls cannot be tried without being done")
        if info.resource == forms.LOOKS:
            return bytes_answer(forms.encode(await self._look(request, info)))
        return bytes_answer(forms.encode(await self._act(await request.body(), info)))

    async def _look(self, request: Request, info: RequestInfo) -> Any:
        look = _LOOKS.get(info.name)
        if look is None or (info.namespace and info.name not in _IN_SPACES):
            raise no_resource()
        if info.verb != "get":
            raise not_allowed()
        async with self._turn(info):
            return await look(await self._client(), request)

    async def _act(self, body: bytes, info: RequestInfo) -> Any:
        act = _ACTS.get(info.name)
        if act is None or (info.namespace and not act.spaced):
            raise no_resource()
        if info.verb != "create":
            raise not_allowed()
        try:
            wish = msgspec.json.decode(body or b"{}", type=act.body)
        except msgspec.MsgspecError as error:
            raise bad_request(f"the body cannot be read: {error}") from error
        async with self._turn(info):
            return await act.run(await self._client(), wish, info.namespace)

    def _turn(self, info: RequestInfo) -> AbstractAsyncContextManager[None]:
        return self._going if info.name in _ALONE else nullcontext()

    async def _client(self) -> Client:
        assert self._services.client is not None
        return await self._services.client()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_SAMPLES):
        raise bad_request(f"count must be a whole number up to {_MOST_SAMPLES}")
    return int(text)
