"""One request, as those who answer it see it."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request

from korch.api.answers import no_resource, not_allowed
from korch.api.formats import Form, form_of
from korch.api.requestinfo import RequestInfo, request_info
from korch.api.scaling import Customs as CustomScale
from korch.api.scaling import Scaling, Workloads
from korch.api.services import Nobody, User
from korch.api.target import Body, Check, Options, Target, options_of
from korch.api.versions import Version
from korch.resources import kinds
from korch.resources.kinds import Kind


@dataclass(frozen=True, slots=True)
class Call:
    """One request that is about stored objects."""

    request: Request
    info: RequestInfo
    version: Version
    query: Mapping[str, str]
    check: Check | None = None

    @property
    def kind(self) -> Kind:
        """What is stored."""
        return self.version.kind

    @property
    def space(self) -> str:
        """Its namespace; "" where the kind is in none."""
        return self.info.namespace if self.kind.namespaced else ""

    @property
    def target(self) -> Target:
        """Where it writes."""
        info = self.info
        return Target(self.version, self.space, info.name, info.subresource, self.check)

    @property
    def scaling(self) -> Scaling:
        """Where its replicas stand."""
        custom = self.version.custom
        return Workloads() if custom is None or custom.scale is None else CustomScale(self.target, custom.scale)

    async def body(self) -> Body:
        """What came with it."""
        return Body(await self.request.body(), self.request.headers.get("content-type", ""))

    def options(self) -> Options:
        """How it writes."""
        return options_of(self.query, self.request.headers.get("user-agent", ""))

    def form(self) -> Form:
        """In which form it is answered."""
        return form_of(self.request.headers.get("accept", ""), self.query)

    def check_named(self) -> None:
        """Refuse what needs the name of an object and has none."""
        if not self.info.name:
            raise not_allowed()

    def check_place(self) -> None:
        """What is in namespaces is named with its namespace, and what is not without one."""
        kind, info = self.kind, self.info
        if not kind.namespaced and info.namespace and not (kind is kinds.NAMESPACE and info.namespace == info.name):
            raise no_resource()
        if kind.namespaced and not info.namespace and info.verb not in ("list", "watch"):
            raise no_resource() if info.name and info.verb != "deletecollection" else not_allowed()


def user_of(request: Request) -> User:
    """Who asks, as the door found out."""
    found = request.scope.get("state", {}).get("user")
    return found if found is not None else Nobody()


def info_of(request: HTTPConnection, query: Mapping[str, str]) -> RequestInfo:
    """What is wanted, as the door read it; else from the bare path, never from a URL that the Host is a part of."""
    found, scope = request.scope.get("state", {}).get("info"), request.scope
    return found if isinstance(found, RequestInfo) else request_info(scope.get("method", "GET"), scope["path"], query)
