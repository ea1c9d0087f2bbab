"""The sample web app as image layers, made of Debian's static busybox and tini: no internet, no compiler, no engine.

The app answers `/` with its version and host name, `/healthz` with its health, logs a line a request, listens on PORT
(default 8080) and is gone at once on SIGTERM. `broken` fails its health check and says why in its log; `crash` ends
with status 3. Any version does so too after CRASH_AFTER_S seconds, and is unhealthy for its first READY_AFTER_S.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from korch.errors import SetupError

VERSIONS = ("1", "2", "broken", "crash")
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}

# Every l of nc adds one to the length of its queue of connections; from two on it stays for the next connection.
_SERVE = f"""#!/bin/sh
read -r VERSION < /app/version
STARTED=$(cut -d. -f1 /proc/uptime)
export VERSION STARTED
if [ "$VERSION" = crash ]; then
  echo "web crash: cannot read /etc/web.conf: no such file, giving up" >&2
  exit 3
fi
echo "web $VERSION listens on port ${{PORT:-8080}}" >&2
set -- nc -{"l" * 128} -p "${{PORT:-8080}}" -e /app/answer
[ -n "$CRASH_AFTER_S" ] || exec "$@"
"$@" &
sleep "$CRASH_AFTER_S"
echo "web $VERSION: out of luck after $CRASH_AFTER_S s, giving up" >&2
exit 3
"""

_ANSWER = r"""#!/bin/sh
IFS=' ' read -r -t 10 method path _ || exit 0
while IFS= read -r -t 10 header; do
  case $header in ''|"$(printf '\r')") break ;; esac
done
path=${path%%\?*}
status='200 OK' body=
uptime=$(cut -d. -f1 /proc/uptime)
case $path in
  /) body="web version $VERSION on $(hostname)" ;;
  /healthz)
    if [ "$VERSION" = broken ]; then
      status='500 Internal Server Error' body='unhealthy: the database does not answer'
    elif [ $((uptime - STARTED)) -lt "${READY_AFTER_S:-0}" ]; then
      status='503 Service Unavailable' body='starting'
    else
      body='ok'
    fi ;;
  *) status='404 Not Found' body="there is no $path here" ;;
esac
echo "$method $path ${status%% *}" >&2
case $status in 5*) echo "health check failed: $body" >&2 ;; esac
printf 'HTTP/1.1 %s\r\nContent-Type: text/plain\r\n' "$status"
printf 'Content-Length: %d\r\nConnection: close\r\n\r\n' "$((${#body} + 1))"
[ "$method" = HEAD ] || printf '%s\n' "$body"
"""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with the digest that a registry knows them by."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """`sha256:...`."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    def descriptor(self) -> dict[str, object]:
        """How a manifest refers to it (image manifest version 2, schema 2)."""
        return {"mediaType": self.media_type, "size": len(self.data), "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image: upload `blobs`, then `manifest` under the tag."""

    tag: str
    blobs: tuple[Blob, ...]
    manifest: Blob


def sample_images(busybox: Path, tini: Path, applets: tuple[str, ...]) -> tuple[Image, ...]:
    """The versions of the sample app. They share their big layer; equal input gives equal digests."""
    base = _layer(
        _base_files(busybox.read_bytes(), tini.read_bytes()), links={f"bin/{name}": "busybox" for name in applets}
    )
    packed = _packed(base)  # once: it is most of the work
    return tuple(_image(version, base, packed) for version in VERSIONS)


def architecture() -> str:
    """This machine's architecture in the words of image manifests."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise SetupError(f"the sample image cannot be made for the architecture {machine}")
    return _ARCHITECTURES[machine]


def _base_files(busybox: bytes, tini: bytes) -> dict[str, tuple[bytes, int]]:
    return {
        "bin/busybox": (busybox, 0o755),
        "bin/tini": (tini, 0o755),
        "etc/passwd": (b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644),
        "etc/group": (b"root:x:0:\nnogroup:x:65534:\n", 0o644),
        "app/serve": (_SERVE.encode(), 0o755),
        "app/answer": (_ANSWER.encode(), 0o755),
    }


def _image(version: str, base: bytes, packed: Blob) -> Image:
    own = _layer({"app/version": (f"{version}\n".encode(), 0o644)}, links={})
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/bin/tini", "--", "/app/serve"],
            "Env": ["PATH=/bin"],
            "ExposedPorts": {"8080/tcp": {}},
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in (base, own)]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "korch lab"} for _ in (base, own)],
    }
    layers = (packed, _packed(own))
    settings = Blob(_json(config), CONFIG_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": settings.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Image(version, (*layers, settings), Blob(_json(manifest), MANIFEST_TYPE))


def _packed(tar: bytes) -> Blob:
    return Blob(gzip.compress(tar, 6, mtime=0), LAYER_TYPE)


def _layer(files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]) -> bytes:
    """An uncompressed tar of these files and symbolic links; folders come before what is in them."""
    folders = sorted(
        {name.rsplit("/", 1)[0] for name in (*files, *links)} | ({"tmp", "dev", "proc", "sys"} if links else set())
    )
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in folders:
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755))
        for name, (data, mode) in sorted(files.items()):
            entry = _entry(name, tarfile.REGTYPE, mode)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, target in sorted(links.items()):
            if name not in files:
                entry = _entry(name, tarfile.SYMTYPE, 0o777)
                entry.linkname = target
                tar.addfile(entry)
    return output.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
