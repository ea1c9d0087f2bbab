"""What is brought into the machines: this checkout, and an image to deploy."""

import io
import json
import tarfile
from pathlib import Path

from korch.lab.image import VERSIONS, sample_images
from korch.lab.machine import program, run
from tests.vm.image import ROOT


def write_checkout(path: Path) -> None:
    """A tar of this checkout as it is now, without what git ignores."""
    listed = run("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    with tarfile.open(path, "w") as tar:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                tar.add(ROOT / name, f"korch/{name}", recursive=False)


def write_sample_image(path: Path, version: str, reference: str) -> None:
    """A version of the lab's sample app as a file that `docker load` and `podman load` read."""
    applets = tuple(run("busybox", "--list").split())
    programs = [Path(str(program(name))) for name in ("busybox", "tini-static")]
    image = sample_images(programs[0], programs[1], applets)[VERSIONS.index(version)]
    *layers, config = image.blobs
    names = [f"{layer.digest.removeprefix('sha256:')}.tar" for layer in layers]
    config_name = f"{config.digest.removeprefix('sha256:')}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": names}]).encode()
    files = {**dict(zip(names, (layer.data for layer in layers), strict=True)), config_name: config.data}
    with tarfile.open(path, "w") as tar:
        for name, data in {**files, "manifest.json": manifest}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
