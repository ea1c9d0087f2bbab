"""What travels to a node's scripts on stdin, and the wishes that nodes keep. Pure."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from korch.engines import sandbox
from korch.engines.environ import split_environment, value_bytes
from korch.engines.wish import ContainerWish, EngineName, FileVolume


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
    lines += files_lines(wish.files)
    lines += [f"record {record.file} {_sized(packed(one_line(record.content)))}" for record in records]
    return "".join(f"{line}\n" for line in (*lines, "end")).encode("ascii")


def files_values(volumes: Sequence[FileVolume]) -> bytes:
    """What files.sh reads on stdin."""
    return "".join(f"{line}\n" for line in (*files_lines(volumes), "end")).encode("ascii")


def sandbox_values() -> bytes:
    """What sandbox.sh reads on stdin: the image for each kind of machine."""
    images = {machine: base64.b64encode(sandbox.archive(machine)).decode("ascii") for machine in sandbox.MACHINES}
    lines = (f"{machine} - {_sized(word)}" for machine, word in images.items())
    return "".join(f"{line}\n" for line in (*lines, "end")).encode("ascii")


def files_lines(volumes: Sequence[FileVolume]) -> list[str]:
    """Each volume with its version, then its files."""
    lines = []
    for volume in volumes:
        lines.append(f"files {volume.name}:{volume.version} {_sized('-')}")
        for one in volume.files:
            content = base64.b64encode(one.content).decode("ascii")
            lines.append(f"data {one.mode:o}:{packed(one.path.encode())} {_sized(content)}")
    return lines


def one_line(content: bytes) -> bytes:
    """JSON without line breaks."""
    return json.dumps(json.loads(content), separators=(",", ":"), ensure_ascii=False).encode()


def packed(data: bytes) -> str:
    """Base64 of the bytes and a dot, which keeps line breaks at the end from being lost in a shell."""
    return base64.b64encode(data + b".").decode("ascii")


def _sized(word: str) -> str:
    return f"{len(word)} {word}"
