"""The API as an ASGI app: finds out what a request wants, and has it answered.

It knows nothing of TLS, credentials or roles: those stand in front of it (`korch.api.security`).
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from korch.api import deleting, discovery, openapi, own, registry, reviews, writing
from korch.api.answers import (
    Refusal,
    bad_request,
    bytes_answer,
    encode_json,
    forbidden,
    json_answer,
    no_resource,
    refusal_answer,
    translate,
    warning_header,
)
from korch.api.cache import Cache
from korch.api.customs import Customs
from korch.api.deleting import Deleter
from korch.api.fixed import check_written
from korch.api.formats import Form, Renderer, form_of, formed
from korch.api.metricsapi import Metrics
from korch.api.parts import Parts
from korch.api.reading import Reading, get, list_
from korch.api.registry import Virtual
from korch.api.requestinfo import RequestInfo, is_own, request_info
from korch.api.scaling import Customs as CustomScale
from korch.api.scaling import Scaling, Workloads
from korch.api.selecting import selection
from korch.api.services import Nobody, Services, User
from korch.api.versions import Version
from korch.api.watching import watch
from korch.api.wire import patches, strict
from korch.api.writing import Body, Target, Writer, Written
from korch.objects.objects import Objects
from korch.objects.values import Clock, SystemClock
from korch.resources import kinds
from korch.resources.kinds import Kind
from korch.store.base import Store

SERVES = "1.35"  # the Kubernetes version whose API this is most like, and that most clients accept
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_GRANTING = "rbac.authorization.k8s.io"
_CONVERSED = frozenset({"exec", "attach", "portforward"})
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


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


@dataclass(frozen=True, slots=True)
class _Call:
    """One request that is about stored objects."""

    request: Request
    info: RequestInfo
    version: Version
    query: Mapping[str, str]
    check: writing.Check | None = None

    @property
    def kind(self) -> Kind:
        """What is stored."""
        return self.version.kind

    @property
    def target(self) -> Target:
        """Where it writes."""
        info = self.info
        return Target(self.version, _space(self.kind, info), info.name, info.subresource, self.check)

    @property
    def scaling(self) -> Scaling:
        """Where its replicas stand."""
        custom = self.version.custom
        return Workloads() if custom is None or custom.scale is None else CustomScale(self.target, custom.scale)

    async def body(self) -> Body:
        """What came with it."""
        return Body(await self.request.body(), self.request.headers.get("content-type", ""))

    def options(self) -> writing.Options:
        """How it writes."""
        return writing.options_of(self.query, self.request.headers.get("user-agent", ""))

    def form(self) -> Form:
        """In which form it is answered."""
        return form_of(self.request.headers.get("accept", ""), self.query)


def _space(kind: Kind, info: RequestInfo) -> str:
    return info.namespace if kind.namespaced else ""


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
        info = _info(request, query)
        kind = None
        try:
            if not info.is_resource:
                return await self._plain(request, info)
            if is_own(info):
                return await self._own.answer(request, info)
            virtual = registry.virtual(info.group, info.version, info.resource)
            if virtual is not None:
                return await self._virtual(virtual, request, info, query)
            version = await self._served(info)
            kind = version.shown
            check = await self._check(request, info)
            answer = await self._stored(_Call(request, info, version, query, check))
            if aged := version.deprecation:
                answer.headers.append("Warning", warning_header(aged))
            return answer
        except Exception as error:
            told = error if "korch-client" in request.headers else None
            return refusal_answer(translate(error, info, kind), told)

    async def converse(self, socket: WebSocket) -> None:
        """Serve a WebSocket: a terminal, or TCP."""
        info = _info(socket, {})
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

    async def _check(self, request: Request, info: RequestInfo) -> writing.Check | None:
        """What refuses Roles and bindings by which somebody would grant more than they have, and an apply that makes
        what somebody may only change.
        """
        authorizer, user = self._services.authorizer, _user(request)
        if authorizer is None or info.verb not in ("create", "update", "patch"):
            return None
        check = await authorizer.check(user) if info.group == _GRANTING else None
        if info.verb == "patch" and patches.media_type(request.headers.get("content-type", "")) == patches.APPLY_PATCH:
            allowed, _ = await authorizer.allowed(user, replace(info, verb="create"))
            return check if allowed else writing.changing_only(user.name, check)
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

    # --- what is no object ---

    async def _plain(self, request: Request, info: RequestInfo) -> Response:
        if info.verb not in ("get", "head"):
            raise no_resource()
        parts = [part for part in info.path.split("/") if part]
        if parts and parts[0] in ("apis", "openapi"):
            await self._customs.look(fresh=True)
        customs = self._customs.shown()
        match parts:
            case []:
                return json_answer(
                    {"paths": ["/api", "/apis", *sorted(_HEALTH), "/openapi/v2", "/openapi/v3", "/version"]}
                )
            case ["version"]:
                return json_answer(version())
            case [word, *_] if f"/{word}" in _HEALTH:
                await self._store.revision()
                return PlainTextResponse("ok")
            case ["api" | "apis" as word]:
                return _groups(request, customs, core=word == "api")
            case ["api", number]:
                return _found(discovery.resource_list("", number))
            case ["apis", group]:
                return _found(discovery.one_group(group, customs))
            case ["apis", group, number]:
                return _found(discovery.resource_list(group, number, customs))
            case ["openapi", *rest]:
                return await _openapi(rest, customs, request.headers.get("accept", ""))
        raise no_resource()

    async def _virtual(self, found: Virtual, request: Request, info: RequestInfo, query: Mapping[str, str]) -> Response:
        verb = "create" if info.verb == "create" else info.verb
        if bool(info.namespace) is not found.namespaced and (info.namespace or verb != "list"):
            raise no_resource()
        if verb not in found.verbs or info.subresource:
            raise Refusal(405, "the server does not allow this method on the requested resource", {})
        if verb != "create":
            of = kinds.NODE if found.plural == "nodes" else kinds.POD
            chosen = selection(of, info.namespace if found.namespaced else "", query)
            return json_answer(await self._metrics.answer(found.plural, info.name, chosen))
        data = strict.parse_body(await request.body(), request.headers.get("content-type", ""))
        if data.get("kind", found.name) != found.name:
            raise Refusal(400, f"the body is a {data['kind']}, not a {found.name}")
        await self._customs.look()  # whether a custom kind is inside namespaces matters here
        return json_answer(await reviews.review(found, data, _user(request), self._services, info.namespace), 201)

    # --- objects ---

    async def _stored(self, call: _Call) -> Response:
        kind, info = call.kind, call.info
        _check_place(kind, info)
        if info.subresource and info.subresource != "status":
            return await self._part(call)
        if info.subresource == "status" and not kind.has_status:
            raise no_resource()
        if not info.subresource and info.verb not in registry.verbs_of(kind):
            if why := registry.why_not(kind):
                raise forbidden(kind, info.name, why)
            raise _not_allowed()
        if kind is kinds.CLUSTERROLE:
            await self._customs.look()  # korch's own tell of custom kinds, too
            if info.verb not in registry.READ_ONLY:
                check_written(kind, info.name)
        act = self._acts.get(info.verb)
        if act is None or (info.subresource and info.verb not in ("get", "update", "patch")):
            raise _not_allowed()
        return await act(self, call)

    async def _get(self, call: _Call) -> Response:
        return await get(self._reading, call.version, _space(call.kind, call.info), call.info.name, call.form())

    async def _list(self, call: _Call) -> Response:
        return await list_(self._reading, call.version, _space(call.kind, call.info), call.query, call.form())

    async def _watch(self, call: _Call) -> Response:
        space = _space(call.kind, call.info)
        return await watch(self._reading, call.version, space, call.query, call.form(), self._ending)

    async def _create(self, call: _Call) -> Response:
        if call.info.name:
            raise _not_allowed()
        made = await self._writer.create(call.target, await call.body(), call.options())
        if call.kind is kinds.CRD:
            await self._customs.look(fresh=True)
        return self._written(call, made)

    async def _update(self, call: _Call) -> Response:
        _needs_name(call)
        return self._written(call, await self._writer.replace(call.target, await call.body(), call.options()))

    async def _patch(self, call: _Call) -> Response:
        _needs_name(call)
        return self._written(call, await self._writer.patch(call.target, await call.body(), call.options()))

    async def _delete(self, call: _Call) -> Response:
        options = deleting.options_of(call.query, await call.body())
        return await self._deleter.delete(call.kind, _space(call.kind, call.info), call.info.name, options)

    async def _delete_collection(self, call: _Call) -> Response:
        options = deleting.options_of(call.query, await call.body())
        return await self._deleter.collection(call.kind, _space(call.kind, call.info), call.query, options)

    _acts: Mapping[str, Callable[["Api", _Call], Awaitable[Response]]] = {
        "get": _get,
        "list": _list,
        "watch": _watch,
        "create": _create,
        "update": _update,
        "patch": _patch,
        "delete": _delete,
        "deletecollection": _delete_collection,
    }

    def _written(self, call: _Call, made: Written) -> Response:
        body = Renderer(call.version, call.form(), self._clock.now).one(made.entry) + b"\n"
        return bytes_answer(body, 201 if made.created else 200, warnings=made.warnings)

    async def _part(self, call: _Call) -> Response:
        info, kind = call.info, call.kind
        known = next((part for part in registry.subresources(kind) if part.name == info.subresource), None)
        if known is None:
            raise no_resource()
        if info.verb not in known.verbs:
            raise _not_allowed()
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


# --- small answers ---


def version() -> dict[str, str]:
    """`/version`: all of it text, as clients want it."""
    major, minor = SERVES.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{SERVES}.0+korch",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _groups(request: Request, customs: Sequence[Version], *, core: bool) -> Response:
    if discovery.wants_aggregated(request.headers.get("accept", "")):
        return Response(encode_json(discovery.aggregated(customs, core=core)), media_type=discovery.AGGREGATED)
    return json_answer(discovery.core_versions(request.url.netloc) if core else discovery.group_list(customs))


def _found(value: dict[str, object] | None) -> Response:
    return PlainTextResponse("404 page not found\n", 404) if value is None else json_answer(value)


async def _openapi(parts: Sequence[str], customs: Sequence[Version], accept: str) -> Response:
    match parts:
        case ["v2"]:
            body, media = openapi.second(accept)
            return Response(body, media_type=media)
        case ["v3"]:
            return json_answer(await asyncio.to_thread(openapi.index, customs))
        case ["v3", "api", number]:
            found = openapi.document("", number)
        case ["v3", "apis", group, number]:
            found = openapi.document(group, number, customs)
        case _:
            raise no_resource()
    return PlainTextResponse("404 page not found\n", 404) if found is None else bytes_answer(found)


def _user(request: Request) -> User:
    found = request.scope.get("state", {}).get("user")
    return found if found is not None else Nobody()


def _info(request: HTTPConnection, query: Mapping[str, str]) -> RequestInfo:
    """What is wanted, as the door read it; else from the bare path, never from a URL that the Host is a part of."""
    found, scope = request.scope.get("state", {}).get("info"), request.scope
    return found if isinstance(found, RequestInfo) else request_info(scope.get("method", "GET"), scope["path"], query)


def _not_allowed() -> Refusal:
    return Refusal(405, "the server does not allow this method on the requested resource", {})


def _needs_name(call: _Call) -> None:
    if not call.info.name:
        raise _not_allowed()


def _check_place(kind: Kind, info: RequestInfo) -> None:
    """What is in namespaces is named with its namespace, and what is not without one."""
    if not kind.namespaced and info.namespace and not (kind is kinds.NAMESPACE and info.namespace == info.name):
        raise no_resource()
    if kind.namespaced and not info.namespace and info.verb not in ("list", "watch"):
        raise no_resource() if info.name and info.verb != "deletecollection" else _not_allowed()
