"""The machines' disk: a Debian made on the spot with debootstrap from this machine's own package sources.

It holds systemd, both engines, what a lab needs, and a virtual environment for korch. It is kept for the next run, as
long as neither its recipe nor korch's dependencies change.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from korch.errors import SetupError
from korch.lab.machine import CLEAN_ENV, require_root, run
from korch.lab.packages import LIST, read_list

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("build.sh")
KERNELS = {"x86_64": "linux-image-cloud-amd64", "aarch64": "linux-image-cloud-arm64"}
PACKAGES = (
    "apparmor",  # Debian's kernel asks for it and Docker fails without; every ordinary installation has it
    "crun",
    "dbus",
    "initramfs-tools",
    "iputils-ping",
    "kmod",
    "make",
    "openssh-server",
    "procps",
    "python3-packaging",  # master.yml would install it; the machines reach no package source
    "python3-apt",  # as in every ordinary installation; Ansible asks for packages through it
    "python3-venv",
    "systemd-sysv",
    "udev",
)


@dataclass(frozen=True, slots=True)
class Image:
    """A folder with base.ext4, vmlinuz, initrd.img, id_ed25519 (for root and vagrant) and host_key.pub."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system; never written to: each machine has an overlay on it."""
        return self.folder / "base.ext4"

    @property
    def key(self) -> Path:
        """The private key that the machines accept."""
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """The machines' host key, as known_hosts has it. Machines of one image share it, as cloned boxes do."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """`SHA256:...` of the host key."""
        return run("ssh-keygen", "-lf", str(self.folder / "host_key.pub")).split()[1]


def work_folder() -> Path:
    """KORCH_VM_DIR, default `~/.cache/korch-vm`; made when it is not there."""
    folder = Path(os.environ.get("KORCH_VM_DIR") or "~/.cache/korch-vm").expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ensure_image() -> Image:
    """The image, built now if there is none, or one of another recipe."""
    require_root()
    folder = work_folder() / "image"
    packages = _packages()
    recipe = hashlib.sha256(RECIPE.read_bytes() + repr((packages, _requirements())).encode()).hexdigest()
    done = folder / "recipe"
    if not done.exists() or done.read_text() != recipe:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _build(folder, packages)
        done.write_text(recipe)
    return Image(folder)


def _build(folder: Path, packages: tuple[str, ...]) -> None:
    mirror, release = _package_source()
    print("building the machines' disk, once: some minutes", flush=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "korch vm", "-f", str(folder / "id_ed25519"))
    _download_wheels(folder / "wheels")
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
    words = (*alone, "sh", str(RECIPE), mirror, release, str(ROOT), *packages)
    log = folder / "build.log"
    with log.open("wb") as output:
        done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode:
        tail = log.read_text(errors="replace").splitlines()[-5:]
        raise SetupError(f"the machines' disk could not be built: {' / '.join(tail)}", hint=f"See {log}")


def _package_source() -> tuple[str, str]:
    """Address and release that this machine's own apt takes its Debian from."""
    facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    release = facts.get("VERSION_CODENAME", "").strip('"')
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    for uri, found, component in (line.split() for line in listed.splitlines()):
        if facts.get("ID") == "debian" and found == release and component == "main":
            return uri, release
    raise SetupError("this machine's apt has no Debian source", hint="The image is made on a Debian machine.")


def _packages() -> tuple[str, ...]:
    """Everything a machine has: as the lab needs it, so that `make demo` runs in it. Optional ones are left out."""
    kernel = KERNELS.get(os.uname().machine)
    if kernel is None:
        raise SetupError(f"no kernel package is known for {os.uname().machine}")
    lab = (name for name in read_list(LIST.read_text())["lab"] if not name.endswith("?"))
    return tuple(sorted({*PACKAGES, *lab, kernel}))


def _requirements() -> tuple[str, ...]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    own = (*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"])
    return (*own, *project["build-system"]["requires"])


def _download_wheels(folder: Path) -> None:
    """Fetch what `pip install -e .[dev]` needs on a machine without network, for the Python of this Debian release."""
    candidate = next(
        line.split()[1] for line in run("apt-cache", "policy", "python3").splitlines() if "Candidate" in line
    )
    version = ".".join(candidate.split(".")[:2])
    words = ("-m", "pip", "download", "-qq", "--only-binary", ":all:", "--python-version", version, "-d", str(folder))
    environment = {**CLEAN_ENV, **os.environ}  # with the user's settings for pip
    done = subprocess.run((sys.executable, *words, *_requirements()), env=environment, check=False)
    if done.returncode:
        raise SetupError(
            f"korch's dependencies could not be fetched for Python {version}", hint="pip's messages are above."
        )
