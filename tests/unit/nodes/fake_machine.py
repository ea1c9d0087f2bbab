"""A machine that only remembers, with faults to order: what a keeper drives in tests."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from korch.engines.images import ImageInfo
from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.engines.wish import ContainerWish, FileVolume
from korch.errors import HostUnreachableError
from korch.nodes.errors import EngineCallError
from korch.nodes.machine import Ended
from korch.nodes.report import ClusterIdentity
from korch.ssh.base import Result

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLUSTER = ClusterIdentity(id="c1", name="lab", master_host="root@here")


def _key(identity: Identity) -> str:
    return f"{identity.uid}/{identity.container}"


class FakeTunnel:
    """Answers once; `keep_open`: then says nothing, else hangs up."""

    def __init__(self, answer: bytes, *, keep_open: bool = False) -> None:
        self.answer, self.keep_open = answer, keep_open
        self.sent = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def read(self, limit: int = 65536) -> bytes:
        answer, self.answer = self.answer, b""
        if not answer and self.keep_open:
            await asyncio.sleep(3600)
        return answer

    async def close(self) -> None:
        self.closed = True


class FakeMachine:
    """`faults`: word of a call → error that it raises; `delays`: → seconds that it takes; `calls`: what was asked."""

    def __init__(self, host: str = "n1") -> None:
        self.host, self.cluster = host, CLUSTER
        self.held: dict[str, ObservedContainer] = {}  # by pod uid, of pods with a sandbox by UID/CONTAINER
        self.faults: dict[str, Exception] = {}
        self.delays: dict[str, float] = {}
        self.calls: list[str] = []
        self.answer: bytes | Exception = OK  # of HTTP checks
        self.silent = False  # checks get no answer
        self.tunnels: list[FakeTunnel] = []
        self.serial = 0
        self.endings: list[tuple[int, tuple[str, ...]]] = []  # (grace time, hook) of each removal and stop
        self.hook_problem = ""
        self.policies: list[str] = []  # of pulls
        self.auths: list[bytes | None] = []
        self.placed: dict[str, dict[str, bytes]] = {}  # by pod uid: files that were brought later than with the start
        self.ends_with: int | None = None  # the exit status of containers that end as soon as they are started
        self.ends_at_once: dict[str, int] = {}  # the same by the container's name in its pod

    @property
    def transport(self) -> "FakeMachine":
        return self

    def count(self, word: str) -> int:
        return sum(call.split()[0] == word for call in self.calls)

    def cut(self) -> None:
        """The network to it stops."""
        gone = HostUnreachableError(f"{self.host}: no route", host=self.host)
        self.faults = dict.fromkeys(("look", "pull", "start", "remove", "stop", "logs", "forward", "run", "exec"), gone)

    def heal(self) -> None:
        self.faults = {}

    async def _call(self, word: str, what: str = "") -> None:
        self.calls.append(f"{word} {what}".strip())
        await asyncio.sleep(self.delays.get(word, 0.01))
        if word in self.faults:
            raise self.faults[word]

    async def containers(self) -> tuple[ObservedContainer, ...]:
        found = tuple(self.held.values())  # as it stands when the engine is asked
        await self._call("look")
        return found

    async def container(self, name: str) -> ObservedContainer | None:
        found = next((one for one in self.held.values() if one.name == name), None)
        await self._call("look", name)
        return found

    async def pull(
        self, image: str, *, auth: bytes | None = None, policy: str = "", timeout_s: float = 600.0
    ) -> ImageInfo:
        self.policies.append(policy)
        self.auths.append(auth)
        await self._call("pull", image)
        if self.lacks_image():
            del self.faults["start"]
        return ImageInfo(image, "1", None, "amd64")

    def lacks_image(self) -> bool:
        """Whether a start fails now as the image is not there."""
        return getattr(self.faults.get("start"), "pod_reason", "") == "ErrImageNeverPull"

    async def start(
        self, wish: ContainerWish, *, epoch: int, records: object = (), existing: str = ""
    ) -> ObservedContainer:
        several = wish.sandbox or wish.identity.container == SANDBOX
        await self._call("start", f"{wish.identity.pod}/{wish.identity.container}" if several else wish.identity.pod)
        uid = _key(wish.identity) if several else wish.identity.uid
        sandbox = self.held.get(f"{wish.identity.uid}/{SANDBOX}")
        assert not wish.sandbox or (sandbox is not None and sandbox.state == "running"), "there is no network to join"
        self.serial += 1
        old = self.held.get(uid)
        if old is not None and old.identity is not None and old.identity.spec_hash != wish.identity.spec_hash:
            raise EngineCallError(f"{wish.name} exists and is another one", host=self.host, pod_reason="NameTaken")
        self.held[uid] = ObservedContainer(
            id=old.id if old else f"id{self.serial}",
            name=wish.name,
            image=wish.image,
            image_id="sha256:1",
            state="running",
            identity=wish.identity,
            started_at=asyncio.get_running_loop().time(),
            ip="" if wish.sandbox else "172.17.0.2",
            joined=sandbox.id if wish.sandbox and sandbox is not None else "",
        )
        code = self.ends_at_once.get(wish.identity.container, self.ends_with)
        if code is not None:
            self.end(uid, code)
        return self.held[uid]

    async def remove(
        self, identity: Identity, *, grace_s: int, epoch: int, hook: tuple[str, ...] = (), only: str = ""
    ) -> Ended:
        self.endings.append((grace_s, hook))
        await self._call("remove", identity.pod)
        for key in self._keys(identity, only):
            del self.held[key]
        return Ended(hook_problem=self.hook_problem)

    async def stop(
        self, identity: Identity, *, grace_s: int, epoch: int, hook: tuple[str, ...] = (), only: str = ""
    ) -> Ended:
        self.endings.append((grace_s, hook))
        await self._call("stop", identity.pod)
        for key in self._keys(identity, only):
            if self.held[key].state == "running":
                self.end(key, 137)
        return Ended(tuple(self.held[key] for key in self._keys(identity, only)), self.hook_problem)

    def _keys(self, identity: Identity, only: str = "") -> list[str]:
        """The container's, or those of all of its pod."""
        wanted = (identity.uid, _key(identity))
        whole = f"{identity.uid}/" if not identity.container else "-"
        found = [key for key in self.held if key in wanted or key.startswith(whole)]
        return [key for key in found if only in {"", self.held[key].id}]

    async def place(self, uid: str, volumes: Sequence[FileVolume], *, epoch: int) -> None:
        await self._call("place", uid)
        self.placed[uid] = {one.path: one.content for volume in volumes for one in volume.files}

    async def last_logs(self, name: str, lines: int = 20) -> str:
        await self._call("logs", name)
        return "its last words"

    async def exec_probe(self, name: str, argv: tuple[str, ...], timeout_s: float) -> Result:
        await self._call("exec", name)
        return Result(0, b"", b"")

    # as its own transport

    async def run(self, command: object, *, become: bool | None = None) -> Result:
        await self._call("run")
        return Result(0, b"", b"")

    async def forward(self, address: str, port: int) -> FakeTunnel:
        await self._call("forward", f"{address}:{port}")
        if self.silent:
            await asyncio.sleep(3600)
        if isinstance(self.answer, Exception):
            raise self.answer
        self.tunnels.append(FakeTunnel(self.answer))
        return self.tunnels[-1]

    # what happens there by itself

    def end(self, uid: str, code: int = 1) -> None:
        """The container ends, and the engine does not start it again."""
        now = asyncio.get_running_loop().time()
        self.held[uid] = replace(self.held[uid], state="exited", exit_code=code, finished_at=now)

    def restart(self, uid: str) -> None:
        """It ends, and the engine starts it again at once."""
        old, now = self.held[uid], asyncio.get_running_loop().time()
        self.held[uid] = replace(old, started_at=now, restart_count=old.restart_count + 1)
