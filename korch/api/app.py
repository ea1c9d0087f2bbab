"""The API as an ASGI app: finds out what a request wants, and has it answered.

It knows nothing of TLS, credentials or roles: those stand in front of it (`korch.api.security`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from korch.api import deleting, own, registry, reviews
from korch.api.answers import (
    Refusal,
    bad_request,
    bytes_answer,
    forbidden,
    json_answer,
    no_resource,
    not_allowed,
    refusal_answer,
    translate,
    warning_header,
)
from korch.api.cache import Cache
from korch.api.call import Call, info_of, user_of
from korch.api.customs import Customs
from korch.api.deleting import Deleter
from korch.api.fixed import check_written
from korch.api.formats import Renderer, formed
from korch.api.metricsapi import Metrics
from korch.api.parts import Parts
from korch.api.plain import plain
from korch.api.reading import Reading, get, list_
from korch.api.registry import Virtual
from korch.api.requestinfo import RequestInfo, is_own
from korch.api.selecting import selection
from korch.api.services import Services
from korch.api.target import Check, Written, changing_only
from korch.api.versions import Version
from korch.api.watching import watch
from korch.api.wire import patches, strict
from korch.api.writing import Writer
from korch.objects.objects import Objects
from korch.objects.values import Clock, SystemClock
from korch.resources import kinds
from korch.store.base import Store

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_GRANTING = "rbac.authorization.k8s.io"
_CONVERSED = frozenset({"exec", "attach", "portforward"})


def create_app(
    objects: Objects, store: Store, *, clock: Clock | None = None, services: Services | None = None
) -> Starlette:
    """The ASGI app. `app.state.api.close()` ends its watches and what it follows."""
    api = Api(objects, store, clock=clock or SystemClock(), services=services or Services())
    everything = "/{path:path}"
    app = Starlette(routes=[Route(everything, api.answer, methods=_METHODS), WebSocketRoute(everything, api.converse)])
    app.router.redirect_slashes = False
    app.state.api = api
    return app


class Api:
    """Answers requests from objects and a cache of them."""

    def __init__(self, objects: Objects, store: Store, *, clock: Clock, services: Services) -> None:
        self._clock, self._services, self._store = clock, services, store
        self.cache = Cache(store)
        self._reading = Reading(store, self.cache, clock.now)
        self._writer = Writer(objects, clock)
        self._deleter = Deleter(objects, self._reading)
        self._parts = Parts(objects, self._writer)
        self._customs = Customs(objects, self.cache, clock)
        self._metrics = Metrics(objects, clock, services)
        self._own = own.Own(services)
        self._ending = asyncio.Event()

    async def close(self) -> None:
        """End watches, and stop following the store."""
        self._ending.set()
        await self.cache.close()

    async def answer(self, request: Request) -> Response:
        """The answer to any request."""
        query = dict(request.query_params)
        info = info_of(request, query)
        kind = None
        try:
            if not info.is_resource:
                return await plain(request, info, self._customs, self._store)
            if is_own(info):
                return await self._own.answer(request, info)
            virtual = registry.virtual(info.group, info.version, info.resource)
            if virtual is not None:
                return await self._virtual(virtual, request, info, query)
            version = await self._served(info)
            kind = version.shown
            check = await self._check(request, info)
            answer = await self._stored(Call(request, info, version, query, check))
            if aged := version.deprecation:
                answer.headers.append("Warning", warning_header(aged))
            return answer
        except Exception as error:
            told = error if "korch-client" in request.headers else None
            return refusal_answer(translate(error, info, kind), told)

    async def converse(self, socket: WebSocket) -> None:
        """Serve a WebSocket: a terminal, or TCP."""
        info = info_of(socket, {})
        try:
            pods = (info.group, info.version, info.resource) == ("", "v1", "pods") and info.namespace and info.name
            if self._services.streams is None or not pods or info.subresource not in _CONVERSED:
                raise bad_request("there is nothing here to talk to over a WebSocket")
            await self._services.streams.converse(socket, info)
        except Exception as error:
            refusal = translate(error, info, kinds.POD)
            if socket.application_state is WebSocketState.CONNECTING:
                told = error if "korch-client" in socket.headers else None
                await socket.send_denial_response(refusal_answer(refusal, told))

    async def _check(self, request: Request, info: RequestInfo) -> Check | None:
        """What refuses Roles and bindings by which somebody would grant more than they have, and an apply that makes
        what somebody may only change.
        """
        authorizer, user = self._services.authorizer, user_of(request)
        if authorizer is None or info.verb not in ("create", "update", "patch"):
            return None
        check = await authorizer.check(user) if info.group == _GRANTING else None
        if info.verb == "patch" and patches.media_type(request.headers.get("content-type", "")) == patches.APPLY_PATCH:
            allowed, _ = await authorizer.allowed(user, replace(info, verb="create"))
            return check if allowed else changing_only(user.name, check)
        return check

    async def _served(self, info: RequestInfo) -> Version:
        """What stands behind the path: a kind of korch's own, or a custom one."""
        place = (info.group, info.version, info.resource)
        found = registry.served(*place)
        if found is None:
            await self._customs.look()
            found = self._customs.served(*place)
        if found is None:
            await self._customs.look(fresh=True)
            found = self._customs.served(*place)
        if found is None:
            raise no_resource()
        return found

    # --- what is no stored object ---

    async def _virtual(self, found: Virtual, request: Request, info: RequestInfo, query: Mapping[str, str]) -> Response:
        if bool(info.namespace) is not found.namespaced and (info.namespace or info.verb != "list"):
            raise no_resource()
        if info.verb not in found.verbs or info.subresource:
            raise not_allowed()
        if info.verb != "create":
            of = kinds.NODE if found.plural == "nodes" else kinds.POD
            chosen = selection(of, info.namespace if found.namespaced else "", query)
            return json_answer(await self._metrics.answer(found.plural, info.name, chosen))
        data = strict.parse_body(await request.body(), request.headers.get("content-type", ""))
        if data.get("kind", found.name) != found.name:
            raise Refusal(400, f"the body is a {data['kind']}, not a {found.name}")
        await self._customs.look()  # whether a custom kind is inside namespaces matters here
        return json_answer(await reviews.review(found, data, user_of(request), self._services, info.namespace), 201)

    # --- objects ---

    async def _stored(self, call: Call) -> Response:
        kind, info = call.kind, call.info
        call.check_place()
        if info.subresource and info.subresource != "status":
            return await self._part(call)
        if info.subresource == "status" and not kind.has_status:
            raise no_resource()
        if not info.subresource and info.verb not in registry.verbs_of(kind):
            if why := registry.why_not(kind):
                raise forbidden(kind, info.name, why)
            raise not_allowed()
        if kind is kinds.CLUSTERROLE:
            await self._customs.look()  # korch's own tell of custom kinds, too
            if info.verb not in registry.READ_ONLY:
                check_written(kind, info.name)
        act = self._acts.get(info.verb)
        if act is None or (info.subresource and info.verb not in ("get", "update", "patch")):
            raise not_allowed()
        return await act(self, call)

    async def _get(self, call: Call) -> Response:
        return await get(self._reading, call.version, call.space, call.info.name, call.form())

    async def _list(self, call: Call) -> Response:
        return await list_(self._reading, call.version, call.space, call.query, call.form())

    async def _watch(self, call: Call) -> Response:
        return await watch(self._reading, call.version, call.space, call.query, call.form(), self._ending)

    async def _create(self, call: Call) -> Response:
        if call.info.name:
            raise not_allowed()
        made = await self._writer.create(call.target, await call.body(), call.options())
        if call.kind is kinds.CRD:
            await self._customs.look(fresh=True)
        return self._written(call, made)

    async def _update(self, call: Call) -> Response:
        call.check_named()
        return self._written(call, await self._writer.replace(call.target, await call.body(), call.options()))

    async def _patch(self, call: Call) -> Response:
        call.check_named()
        return self._written(call, await self._writer.patch(call.target, await call.body(), call.options()))

    async def _delete(self, call: Call) -> Response:
        options = deleting.options_of(call.query, await call.body())
        return await self._deleter.delete(call.kind, call.space, call.info.name, options)

    async def _delete_collection(self, call: Call) -> Response:
        options = deleting.options_of(call.query, await call.body())
        return await self._deleter.collection(call.kind, call.space, call.query, options)

    _acts: Mapping[str, Callable[["Api", Call], Awaitable[Response]]] = {
        "get": _get,
        "list": _list,
        "watch": _watch,
        "create": _create,
        "update": _update,
        "patch": _patch,
        "delete": _delete,
        "deletecollection": _delete_collection,
    }

    def _written(self, call: Call, made: Written) -> Response:
        body = Renderer(call.version, call.form(), self._clock.now).one(made.entry) + b"\n"
        return bytes_answer(body, 201 if made.created else 200, warnings=made.warnings)

    async def _part(self, call: Call) -> Response:
        info, kind = call.info, call.kind
        known = next((part for part in registry.subresources(kind) if part.name == info.subresource), None)
        if known is None:
            raise no_resource()
        if info.verb not in known.verbs:
            raise not_allowed()
        match info.subresource:
            case "scale":
                body = None if info.verb == "get" else await call.body()
                options = call.options()
                track = self._writer.track(options, subresource="scale", shape=call.target.shape)
                scale = await self._parts.scale(call.target, call.scaling, body, options, track)
                return json_answer(formed("autoscaling", scale, call.form(), self._clock.now()))
            case "eviction":
                return await self._parts.evict(info.namespace, info.name, call.query, await call.body())
            case "binding":
                dry_run = call.options().dry_run
                return await self._parts.bind(info.namespace, info.name, await call.body(), dry_run=dry_run)
            case "token" if self._services.token is not None:
                body, dry_run = await call.body(), call.options().dry_run
                asked = strict.parse_body(body.data, body.content_type)
                return json_answer(await self._services.token(info, asked, dry_run), 201)
            case "log" | "exec" | "attach" | "portforward" if self._services.streams is not None:
                return await self._services.streams.plain(call.request, info)
        raise Refusal(501, f"{info.subresource} is not served here", reason="NotImplemented")
