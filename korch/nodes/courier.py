"""Carries korch's scripts to one node and brings their answers back, or the errors that they mean."""

import re
import time

from korch.engines.base import Script
from korch.engines.wish import EngineName
from korch.errors import InvalidError
from korch.nodes.answer import Answer, parse_answer
from korch.nodes.errors import refusal_error, silent_error
from korch.nodes.report import Claim, ClusterIdentity, claim_text
from korch.nodes.texts import script_text
from korch.ssh.base import Result, Transport

_CLUSTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


class Courier:
    """One node's scripts. `become`: None = without sudo until it proves too little; `engine`: None = not known yet."""

    def __init__(
        self,
        transport: Transport,
        cluster: ClusterIdentity,
        *,
        shared: bool,
        become: bool | None,
        engine: EngineName | None,
        state_root: str,
    ) -> None:
        if not _CLUSTER_ID.fullmatch(cluster.id):
            raise InvalidError(f'"{cluster.id}" is not a cluster id', hint="Letters, digits, _ and -, at most 63.")
        self.transport, self.cluster, self.shared, self.become = transport, cluster, shared, become
        self.engine = engine
        self._state_root = state_root

    @property
    def host(self) -> str:
        """The host's name in the inventory."""
        return self.transport.host

    @property
    def ownership(self) -> tuple[str, str]:
        """The words with which a script claims the machine if nobody has."""
        claim = Claim(self.cluster.id, self.cluster.name, self.cluster.master_host)
        return ("1" if self.shared else "0", claim_text(claim))

    def script(self, name: str, *args: str, stdin: bytes | None = None, timeout_s: float = 30.0) -> Script:
        """A script with the words that all of them begin with."""
        head = (self.cluster.id, self._state_root, self.engine or "docker")
        return Script(script_text(name), (*head, *args), stdin if stdin is not None else b"", timeout_s)

    async def ask(
        self, name: str, *args: str, stdin: bytes | None = None, timeout_s: float = 30.0, epoch: int | None = None
    ) -> Answer:
        """A script's whole answer. Raises the error for a refusal, and for a script that did not come to its end."""
        result = await self.run(self.script(name, *args, stdin=stdin, timeout_s=timeout_s))
        return self.read(result, timeout_s=timeout_s, epoch=epoch)

    async def timed(self, name: str, *args: str, timeout_s: float) -> tuple[Answer, float, float]:
        """(answer, the master's time when it came, seconds that it took). Connecting is not part of the time."""
        await self.transport.connect()
        began = time.monotonic()
        result = await self.run(self.script(name, *args, timeout_s=timeout_s))
        took_s = time.monotonic() - began
        received_at = time.time()
        return self.read(result, timeout_s=timeout_s), received_at, took_s

    async def run(self, script: Script) -> Result:
        """The raw result, as the user that works there."""
        return await self.transport.run(script, become=self.become)

    def read(self, result: Result, *, timeout_s: float, epoch: int | None = None) -> Answer:
        """The answer in a result, or the error that it means."""
        answer = parse_answer(result.text)
        refused = answer.first("refuse")
        if refused is not None:
            raise refusal_error(self.host, refused.rest, epoch=epoch)
        if not answer.sections or answer.sections[-1].word not in {"end", "done"}:
            stderr = result.stderr.decode("utf-8", "replace")
            raise silent_error(self.host, result.status, stderr, timeout_s=timeout_s, engine=self.engine or "docker")
        return answer
