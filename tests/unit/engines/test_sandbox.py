"""The sandbox's image: its program really runs, and its content is what engines need."""

import io
import os
import platform
import signal
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from korch.engines.sandbox import MACHINES, PROGRAM, VOLUMES, archive, image_name, program, volume_folder
from korch.resources.validate_volumes import MOST_SHARED


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="there is no program for this machine")
def test_the_program_waits_until_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pause"
    file.write_bytes(program(platform.machine()))
    file.chmod(0o755)
    process = subprocess.Popen([file])
    try:
        stat = Path(f"/proc/{process.pid}/stat")
        while (state := stat.read_text().rpartition(")")[2].split()[0]) == "R":
            os.sched_yield()
        assert (state, process.poll()) == ("S", None)
        assert Path(f"/proc/{process.pid}/exe").resolve() == file
        process.send_signal(signal.SIGSTOP)  # what interrupts its wait does not end it
        process.send_signal(signal.SIGCONT)
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            os.sched_yield()
        assert process.poll() is None
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("machine", MACHINES)
def test_each_program_is_a_whole_elf_file_of_its_machine(machine: str) -> None:
    content = program(machine)
    assert content[:7] == b"\x7fELF\x02\x01\x01"
    kind, number, _, entry, headers = struct.unpack_from("<HHIQQ", content, 16)
    assert (kind, number) == (2, {"x86_64": 62, "aarch64": 183}[machine])
    loads, rights, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", content, headers)
    assert (loads, rights, offset) == (1, 5, 0)
    assert in_file == in_memory == len(content)
    code = content[entry - address :]
    assert {"x86_64": b"\x0f\x05", "aarch64": bytes.fromhex("010000d4")}[machine] in code


@pytest.mark.parametrize("machine", MACHINES)
def test_the_image_holds_the_program_and_folders_that_everybody_may_write_to(machine: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(machine)), mode="r:gz") as tar:
        entries = {f"/{entry.name}": entry for entry in tar}
        binary = tar.extractfile(entries[PROGRAM])
        assert binary is not None
        assert binary.read() == program(machine)
    assert entries[PROGRAM].mode == 0o555
    folders = [entries[volume_folder(number)] for number in range(VOLUMES)]
    assert len(entries) == 1 + VOLUMES
    assert all(entry.isdir() and entry.mode == 0o777 for entry in folders)
    assert archive.__wrapped__(machine) == archive(machine)  # type: ignore[attr-defined]


def test_the_name_stands_for_the_content_and_the_folders_suffice() -> None:
    assert image_name().startswith("korch.dev/sandbox:")
    assert VOLUMES == MOST_SHARED
