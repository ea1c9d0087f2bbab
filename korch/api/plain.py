"""What is asked for by its path alone: health, the version, discovery, OpenAPI."""

import asyncio
import platform
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from korch.api import discovery, openapi
from korch.api.answers import bytes_answer, encode_json, json_answer, no_resource
from korch.api.customs import Customs
from korch.api.requestinfo import RequestInfo
from korch.api.versions import Version
from korch.store.base import Store

_SERVES = "1.35"  # the Kubernetes version whose API this is most like, and that most clients accept
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


async def plain(request: Request, info: RequestInfo, known: Customs, store: Store) -> Response:
    """The answer to what is no resource. Healthy is who can read its store."""
    if info.verb not in ("get", "head"):
        raise no_resource()
    parts = [part for part in info.path.split("/") if part]
    if parts and parts[0] in ("apis", "openapi"):
        await known.look(fresh=True)
    customs = known.shown()
    match parts:
        case []:
            return json_answer({"paths": ["/api", "/apis", *sorted(_HEALTH), "/openapi/v2", "/openapi/v3", "/version"]})
        case ["version"]:
            return json_answer(version())
        case [word, *_] if f"/{word}" in _HEALTH:
            await store.revision()
            verbose = "verbose" in request.query_params
            return PlainTextResponse(f"[+]store ok\n{word} check passed\n" if verbose else "ok")
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


def version() -> dict[str, str]:
    """`/version`: all of it text, as clients want it."""
    major, minor = _SERVES.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{_SERVES}.0+korch",
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
    return _no_page() if value is None else json_answer(value)


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
    return _no_page() if found is None else bytes_answer(found)


def _no_page() -> Response:
    return PlainTextResponse("404 page not found\n", 404)
