"""What a lab remembers: in its folder what was asked for, and on the machine whose lab of that name is up."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from korch.errors import ForbiddenError
from korch.lab.spec import NodeSpec

OWNERS = Path("/run/korch-labs")  # one file a lab: the folder that it lives in; gone after a reboot, as the lab is


@dataclass(frozen=True, slots=True)
class Record:
    """The last `up`: what was asked for, the lab's network without its last octet, the last octet of each node."""

    prefix: str
    specs: tuple[NodeSpec, ...]
    numbers: dict[str, int]

    def address(self, node: str) -> str:
        """The IPv4 address of a node."""
        return f"{self.prefix}.{self.numbers[node]}"


def spec_text(spec: NodeSpec) -> str:
    """A spec as one line of JSON; equal specs give equal text."""
    return json.dumps(asdict(spec), sort_keys=True)


def read_record(path: Path) -> Record | None:
    """The lab's record, or None when there is none (or one that a crash left half written)."""
    try:
        value: dict[str, Any] = json.loads(path.read_text())
        specs = tuple(NodeSpec(**_tuples(spec)) for spec in value["specs"])
        return Record(str(value["prefix"]), specs, dict(value["numbers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Replace the record in one step."""
    value = {"prefix": record.prefix, "specs": [asdict(spec) for spec in record.specs], "numbers": record.numbers}
    replace_text(path, json.dumps(value, indent=1) + "\n")


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that readers see the old or the new text, never a half."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text)
    draft.chmod(mode)
    draft.replace(path)


def owner_of(name: str) -> Path | None:
    """The folder of the running lab of that name, whoever started it."""
    try:
        return Path((OWNERS / name).read_text().strip())
    except OSError:
        return None


def refuse_foreign(name: str, folder: Path) -> None:
    """Nothing, or ForbiddenError when the lab of that name lives in another folder, which still exists."""
    owner = owner_of(name)
    if owner is not None and owner != folder and owner.exists():
        raise ForbiddenError(
            f'a lab named "{name}" is up already on this machine, in {owner}; it is left alone',
            hint=f"Take another name (korch lab --name NAME), or, if it is yours: KORCH_HOME={owner.parent.parent}.",
        )


def claim_name(name: str, folder: Path) -> None:
    """Note that the lab of that name lives in this folder; ForbiddenError when one lives elsewhere."""
    refuse_foreign(name, folder)
    OWNERS.mkdir(exist_ok=True)
    replace_text(OWNERS / name, f"{folder}\n")


def release_name(name: str) -> None:
    """Forget the lab's owner."""
    (OWNERS / name).unlink(missing_ok=True)
    try:
        OWNERS.rmdir()
    except OSError:
        return  # other labs are up, or none ever was


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that do the same. Made when missing; may be removed while held."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists() and os.stat(folder).st_ino == os.fstat(descriptor).st_ino:
                yield
                return
        finally:
            os.close(descriptor)


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
