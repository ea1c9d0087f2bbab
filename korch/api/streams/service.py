"""The API's streams: who asks is let in already; what is asked is checked here, then carried out.

Everything that can be refused is refused before the upgrade, as an ordinary answer: clients read no other.
"""

from contextlib import AbstractAsyncContextManager

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from korch.api.answers import Refusal, bad_request
from korch.api.requestinfo import RequestInfo, truth
from korch.api.streams.channels import V5, choose_protocol
from korch.api.streams.door import Door, LogWish
from korch.api.streams.logs import LogResponse, log_options, wish_of
from korch.api.streams.sessions import Session, Wanted
from korch.api.streams.sockets import Talk
from korch.api.streams.targets import Target, container_of, find_pod, gone, must_be_entered, must_have_begun
from korch.api.streams.tunnels import SPDY, ChannelForward, SpdyForward, ports_of
from korch.objects.objects import Objects
from korch.resources.images import containers_of
from korch.ssh.base import Stream, TcpTunnel

_RUNS = frozenset({"running", "paused"})
_NO_SPDY = "unable to upgrade: SPDY is not served here, only WebSockets (kubectl 1.31 and newer speak them by default)"


class Streams:
    """Implements `korch.api.services.Streams`."""

    def __init__(self, objects: Objects, door: Door) -> None:
        self._objects, self._door = objects, door

    async def plain(self, request: Request, info: RequestInfo) -> Response:
        """The answer to a request without a WebSocket: a log, or why there is none of the others."""
        query = request.query_params
        if info.subresource == "log":
            return await self._log(request, info)
        if info.subresource == "portforward":
            await self._forwarded(info)
        else:
            await self._entered(info, query.get("container", ""), query.getlist("command"))
        raise bad_request(_NO_SPDY)

    async def converse(self, socket: WebSocket, info: RequestInfo) -> None:
        """Serve a WebSocket. Raises what it is refused for before it was accepted, and nothing after."""
        if info.subresource == "portforward":
            await self._forward(socket, info)
        else:
            await self._session(socket, info)

    async def _log(self, request: Request, info: RequestInfo) -> Response:
        pod = await find_pod(self._objects, info)
        target = container_of(pod, request.query_params.get("container", ""))
        options = log_options(request.query_params, info.name)
        must_have_begun(target, previous=options.previous)
        seen = await self._door.look(target)
        if seen is None:
            raise gone(target)
        wish = wish_of(options, seen, target.status)
        if wish is None:
            name = target.container
            raise bad_request(f'previous terminated container "{name}" in pod "{info.name}" not found')

        def start(wish: LogWish = wish) -> AbstractAsyncContextManager[Stream]:
            return self._door.logs(target, wish)

        return LogResponse(start, target, options.limit_bytes)

    async def _entered(self, info: RequestInfo, container: str, argv: list[str]) -> Target:
        """The running container of an exec or attach."""
        pod = await find_pod(self._objects, info)
        target = container_of(pod, container)
        if info.subresource == "exec" and not any(argv):
            raise Refusal(422, f'PodExecOptions "{info.name}" is invalid: command: Required value')
        must_be_entered(pod)
        seen = await self._door.look(target)
        if seen is None:
            raise gone(target)
        if seen.state not in _RUNS:
            raise bad_request(f'container "{target.container}" of pod "{info.name}" does not run: it is {seen.state}')
        return target

    async def _session(self, socket: WebSocket, info: RequestInfo) -> None:
        query = socket.query_params
        argv = query.getlist("command")
        protocol = choose_protocol(socket.scope.get("subprotocols") or ())
        if protocol is None:
            raise bad_request(
                "none of the offered protocols is spoken here: v5.channel.k8s.io and v4.channel.k8s.io are"
            )
        target = await self._entered(info, query.get("container", ""), argv)
        stdin, tty = truth(query.get("stdin")), truth(query.get("tty"))
        stdout, stderr = (truth(query.get(word, "true")) for word in ("stdout", "stderr"))  # Kubernetes' defaults
        if not (stdin or stdout or stderr):
            raise bad_request("at least one of stdin, stdout, stderr must be asked for")
        attached = info.subresource == "attach"
        if attached:
            tty = any(one.tty for one in containers_of(target.pod.spec) if one.name == target.container)

        def start(size: tuple[int, int] | None) -> AbstractAsyncContextManager[Stream]:
            if attached:
                return self._door.attach(target, stdin=stdin, size=size)
            return self._door.exec(target, argv, stdin=stdin, size=size)

        await socket.accept(protocol or None)
        await Session(Talk(socket), start, Wanted(stdin, stdout, stderr, tty, status=not attached)).run()

    async def _forwarded(self, info: RequestInfo) -> Target:
        pod = await find_pod(self._objects, info)
        if pod.status.phase != "Running" or not pod.spec.node_name:
            raise bad_request(f"unable to forward port because pod is not running. Current status={pod.status.phase}")
        return Target(pod, pod.spec.containers[0].name)

    async def _forward(self, socket: WebSocket, info: RequestInfo) -> None:
        target = await self._forwarded(info)
        offered = socket.scope.get("subprotocols") or ()

        async def dial(port: int) -> TcpTunnel:
            return await self._door.forward(target, port)

        if SPDY in offered:
            await socket.accept(SPDY)
            await SpdyForward(Talk(socket), dial, info.name).run()
            return
        protocol = choose_protocol(offered)
        ports = ports_of(socket.query_params.getlist("ports"))
        if protocol is None or ports is None:
            raise bad_request(f"a port-forward needs the protocol {SPDY}, or the query ports=NUMBER")
        await socket.accept(protocol or None)
        await ChannelForward(Talk(socket), dial, info.name, ports, ends=protocol == V5).run()
