"""What travels to a node's scripts on stdin, and the wishes that nodes keep. Pure."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from korch.engines.environ import split_environment, value_bytes
from korch.engines.wish import ContainerWish, EngineName


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """The last full wish of a workload, as it is kept on the nodes that run it: JSON, secrets by name only."""

    namespace: str
    workload: str  # such as "Deployment/web"
    content: bytes

    @property
    def file(self) -> str:
        """The file's name on the node: `_` occurs in no namespace."""
        return f"{self.namespace}_{quote(self.workload, safe='')}"


@dataclass(frozen=True, slots=True)
class StoredWish:
    """A wish as a node kept it."""

    file: str
    content: bytes


def start_values(engine: EngineName, wish: ContainerWish, records: Sequence[WorkloadRecord] = ()) -> bytes:
    """What start.sh reads on stdin: a line a value, each with its length."""
    environment = split_environment(engine, wish.env)
    lines = [f"env {name} {_sized(packed(value_bytes(name, value)))}" for name, value in environment.exported]
    if environment.file:
        lines.append(f"file - {_sized(base64.b64encode(environment.file.encode()).decode('ascii'))}")
    lines += [f"folder - {_sized(packed(mount.source.encode()))}" for mount in wish.mounts if mount.make]
    lines += [f"record {record.file} {_sized(packed(one_line(record.content)))}" for record in records]
    return "".join(f"{line}\n" for line in (*lines, "end")).encode("ascii")


def one_line(content: bytes) -> bytes:
    """JSON without line breaks."""
    return json.dumps(json.loads(content), separators=(",", ":"), ensure_ascii=False).encode()


def packed(data: bytes) -> str:
    """Base64 of the bytes and a dot, which keeps line breaks at the end from being lost in a shell."""
    return base64.b64encode(data + b".").decode("ascii")


def _sized(word: str) -> str:
    return f"{len(word)} {word}"
