"""Where a state file may live: a folder of our own, on a file system whose locks and shared memory can be trusted."""

import re
from pathlib import Path

from korch.errors import StoreError

# Several machines, or host and guest, can write these at once, but SQLite's WAL needs one memory for all writers.
SHARED_FILE_SYSTEMS = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
        "nfs4", "ocfs2", "gfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
        "fuse.ceph", "fuse.cephfs", "fuse.curlftpfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.grpcfuse",
        "fuse.osxfs", "fuse.prl_fsd", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
    }
)  # fmt: skip


def refuse_shared_file_system(path: Path) -> None:
    """Raise `StoreError` when `path` is, or would be, on a network or shared-folder file system."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return  # not Linux: nothing to ask
    kind = file_system_of(mounts, str(path.resolve()))
    if kind in SHARED_FILE_SYSTEMS:
        raise StoreError(
            f"{path} is on {kind}, a network or shared-folder file system, where SQLite loses data",
            hint="Set KORCH_HOME to a folder on a local disk (inside a VM: not the shared project folder).",
        )


def file_system_of(mountinfo: str, path: str) -> str:
    """The type of the file system that holds `path`, from the text of /proc/self/mountinfo; "" when not found.

    The format is in proc(5): ID PARENT DEV ROOT MOUNTPOINT OPTIONS [TAGS...] - TYPE SOURCE SUPEROPTIONS.
    """
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        words, after = left.split(" "), right.split(" ")
        if len(words) < 6 or not after[0]:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two mounts on one point the later hides the earlier
            best, kind = len(point), after[0]
    return kind


def make_private_folder(folder: Path) -> None:
    """Create `folder` and what is missing above it, each 0700 whatever the umask; existing ones stay as they are."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
