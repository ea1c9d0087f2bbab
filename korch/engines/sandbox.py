"""The image of a sandbox: the container that holds a pod's network while others join it. Pure.

A sandbox does nothing, for ever. So that nodes need no registry for it, the image is made here, and a node's engine
gets it by `import`. It holds one static program, and folders that every user may write to: engines give a new volume
the owner and mode of the folder that it covers, and the volumes of a pod are made by being mounted there.

The program is an ELF file of one header, one segment and a few instructions, put together by hand (System V ABI,
"Object Files"; the numbers of system calls are those of Linux' asm/unistd.h for each machine):

    x86_64    b8 22 00 00 00   mov eax, 34        pause(): returns after a signal, if one is handled
              0f 05            syscall
              eb f7            jmp to the beginning

    aarch64   d2800000 .. 04   mov x0 .. x4, #0   ppoll(NULL, 0, NULL, NULL, 0): there is no pause() here
              d2800928         mov x8, #73
              d4000001         svc #0
              17fffff9         b to the beginning
"""

import hashlib
import struct
from collections.abc import Mapping
from functools import cache
from typing import Final

PROGRAM: Final = "/pause"
VOLUMES: Final = 32  # folders for volumes, /volumes/0 and so on
_AT: Final = 0x400000  # where the file is mapped in memory
_ELF_HEADER, _PROGRAM_HEADER = 64, 56  # bytes
_MACHINES: Final[Mapping[str, tuple[int, bytes]]] = {  # by `uname -m`: the ABI's number, the instructions
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    "aarch64": (
        183,
        struct.pack("<8I", *(0xD2800000 | register for register in range(5)), 0xD2800928, 0xD4000001, 0x17FFFFF9),
    ),
}
MACHINES: Final = tuple(_MACHINES)


def program(machine: str) -> bytes:
    """The program for a machine as `uname -m` calls it."""
    number, code = _MACHINES[machine]
    start = _ELF_HEADER + _PROGRAM_HEADER
    size = start + len(code)
    identification = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian, version 1, System V
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, _AT + start, _ELF_HEADER, 0, 0, _ELF_HEADER, _PROGRAM_HEADER, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _AT, _AT, size, size, 0x1000)  # to be loaded; read and run
    return identification + header + segment + code


@cache
def archive(machine: str) -> bytes:
    """The image's one layer, for an engine's `import`: the same bytes every time, but for the compression."""
    import gzip  # here, as most runs need no sandbox and are not to wait for it

    return gzip.compress(_layer(machine), mtime=0)


def _layer(machine: str) -> bytes:
    import io
    import tarfile

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        binary = program(machine)
        entry = tarfile.TarInfo(PROGRAM.strip("/"))
        entry.mode, entry.size = 0o555, len(binary)
        tar.addfile(entry, io.BytesIO(binary))
        for number in range(VOLUMES):
            folder = tarfile.TarInfo(volume_folder(number).strip("/"))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(folder)
    return content.getvalue()


def volume_folder(number: int) -> str:
    """Where the sandbox mounts the pod's volume of this number."""
    return f"/volumes/{number}"


@cache
def image_name() -> str:
    """What the image is called on nodes; another content has another name."""
    found = hashlib.sha256()
    for machine in MACHINES:
        found.update(_layer(machine))
    return f"korch.dev/sandbox:{found.hexdigest()[:12]}"
