"""The lab's image registry: Debian's docker-registry on the bridge, filled with the sample app through its HTTP API."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from korch.errors import SetupError
from korch.lab.boot import join_then, spawn, wait_until
from korch.lab.cgroups import Groups
from korch.lab.image import Blob, Image, sample_images
from korch.lab.machine import program, run

REGISTRY, PRIVATE = "_registry", "_registry-private"  # control groups; no node can be called so
# The caller's proxy settings must not stand between this machine and its own bridge.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def start_registry(groups: Groups, folder: Path, address: str, *, credentials: tuple[str, str] | None = None) -> None:
    """Serve the folder's images at `host:port`, to everybody or to one user. An open one that is up is kept."""
    group = PRIVATE if credentials else REGISTRY
    if credentials is None and answers(address):
        return
    groups.create(group)
    groups.kill(group)
    folder.mkdir(parents=True, exist_ok=True)
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}}
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": storage,
        "http": {"addr": address},
    }
    if credentials:
        settings["auth"] = {"htpasswd": {"realm": "lab", "path": str(_write_users(folder, credentials))}}
    config = folder / f"{group.strip('_')}.json"  # JSON is YAML
    config.write_text(json.dumps(settings))
    log = folder / "registry.log"
    spawn(join_then(groups.joins(group), ("docker-registry", "serve", str(config))), log)
    wait_until(f"registry {address}", lambda: answers(address), timeout_s=15.0, log=log)


def answers(address: str) -> bool:
    """Whether a registry is at home there, be it one that asks who we are."""
    try:
        with _OPENER.open(f"http://{address}/v2/", timeout=2.0) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
    except OSError:
        return False


def _write_users(folder: Path, credentials: tuple[str, str]) -> Path:
    """An Apache password file; the registry reads bcrypt hashes only."""
    import bcrypt

    user, password = credentials
    users = folder / "users"
    users.write_text(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()}\n")
    return users


def push_samples(address: str, repository: str = "web") -> None:
    """Put every version of the sample app into the registry; what is there already is not sent again."""
    applets = tuple(run("busybox", "--list").split())
    for image in sample_images(_program("busybox"), _program("tini-static"), applets):
        push(address, repository, image)


def push(address: str, repository: str, image: Image) -> None:
    """Upload one image under its tag."""
    base = f"http://{address}/v2/{repository}"
    for blob in image.blobs:
        if not _exists(f"{base}/blobs/{blob.digest}"):
            _upload(base, blob)
    _send("PUT", f"{base}/manifests/{image.tag}", image.manifest.data, image.manifest.media_type)


def _upload(base: str, blob: Blob) -> None:
    """Monolithic upload of the distribution API: ask for a place, then put the bytes there."""
    place = _send("POST", f"{base}/blobs/uploads/", b"", "application/octet-stream")
    joint = "&" if "?" in place else "?"
    _send("PUT", f"{place}{joint}{urlencode({'digest': blob.digest})}", blob.data, "application/octet-stream")


def _exists(url: str) -> bool:
    try:
        with _OPENER.open(urllib.request.Request(url, method="HEAD"), timeout=10.0):  # noqa: S310  the lab's own address
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


def _send(method: str, url: str, data: bytes, media_type: str) -> str:
    """The Location of the answer."""
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": media_type})  # noqa: S310
    try:
        with _OPENER.open(request, timeout=30.0) as response:
            return str(response.headers.get("Location", ""))
    except OSError as error:
        raise SetupError(f"the lab's registry refused {method} {url.partition('?')[0]}: {error}") from error


def _program(name: str) -> Path:
    found = program(name)
    if found is None:
        raise SetupError(f"{name} is not on this machine")
    return Path(found)
