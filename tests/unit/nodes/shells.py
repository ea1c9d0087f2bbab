"""Real shells that run korch's scripts against the fake engine: what a node would do, without a node."""

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from korch.engines.base import Command, Script
from korch.ssh.base import Result
from korch.ssh.frame import words_of

FAKE = Path(__file__).with_name("fake_engine.py")
SHELLS = tuple(name for name in ("dash", "bash", "busybox") if shutil.which(name))


@dataclass
class ShellTransport:
    """Runs scripts with one shell and a PATH of its own. "busybox": nothing but busybox is on PATH."""

    folder: Path
    shell: str
    host: str = "n1"
    noise: bytes = b""
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        self.install("docker")
        if self.shell == "busybox":
            for applet in subprocess.run(
                ("busybox", "--list"), capture_output=True, text=True, check=True
            ).stdout.split():
                (self.bin / applet).symlink_to(shutil.which("busybox") or "")
            self.path = str(self.bin)
        else:
            (self.bin / "sh").symlink_to(shutil.which(self.shell) or "")
            self.path = f"{self.bin}:/usr/bin:/bin"

    def install(self, engine: str) -> None:
        """Put the fake on PATH under that name."""
        state = self.folder / "bin" / "engine-state"
        state.mkdir(exist_ok=True)
        if not (state / "data.json").exists():
            (state / "data.json").write_text(json.dumps({"containers": {}, "images": {}, "volumes": [], "serial": 0}))
            (state / "calls").touch()
        program = self.bin / f"{engine}.py"
        shutil.copy(FAKE, program)
        (self.bin / engine).write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {program} "$@"\n')
        (self.bin / engine).chmod(0o755)

    @property
    def state(self) -> Path:
        """The fake engine's state folder."""
        return self.bin / "engine-state"

    @property
    def data(self) -> dict[str, Any]:
        """What the fake engine holds."""
        return dict(json.loads((self.state / "data.json").read_text()))

    def change(self, change: Any) -> None:
        """Change what the fake engine holds."""
        data = self.data
        change(data)
        (self.state / "data.json").write_text(json.dumps(data))

    def calls(self, word: str) -> list[dict[str, Any]]:
        """The engine calls of that word, in order."""
        lines = [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]
        return [line for line in lines if line["word"] == word]

    async def connect(self, *, timeout_s: float = 10.0) -> None:
        """Nothing to do."""

    async def run(self, command: Command | Script, *, become: bool | None = None) -> Result:
        """Run to the end."""
        words = words_of(command)
        program = [str(self.bin / "sh"), *words[1:]] if words[0] == "sh" else [str(self.bin / words[0]), *words[1:]]
        process = await asyncio.create_subprocess_exec(
            *program,
            stdin=-1,
            stdout=-1,
            stderr=-1,
            env={"PATH": self.path, "HOME": str(self.folder)},
        )
        self.processes.append(process)
        out, err = await process.communicate(command.stdin or b"")
        return Result(process.returncode or 0, self.noise + out, err)
