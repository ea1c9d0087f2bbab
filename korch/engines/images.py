"""Images: how a reference reads, what a node holds, what may be pruned. Pure."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from korch.engines.observed import image_id
from korch.engines.wish import EngineName
from korch.errors import InvalidError

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "arm64v8": "arm64",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<registry>localhost|(?![-.])[A-Za-z0-9.-]*[.:][A-Za-z0-9.:-]*|\[[0-9a-fA-F:]+\](?::\d+)?)/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def image_template(engine: EngineName) -> str:
    """Go template for `image inspect --format`: one line of JSON an image."""
    identifier = ".Id" if engine == "docker" else ".ID"
    fields = (("Id", identifier), ("Digests", ".RepoDigests"), ("Tags", ".RepoTags"))
    more = (("Arch", ".Architecture"), ("Size", ".Size"))
    return "{" + ",".join(f'"{key}":{{{{json {path}}}}}' for key, path in fields + more) + "}"


LIST_TEMPLATE = r"{{.ID}}\t{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.Size}}"  # `images --no-trunc --digests --format`


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image on a node. `digest_ref` is `repo@sha256:...` when a registry knows it, else None."""

    reference: str  # as it was asked for
    id: str
    digest_ref: str | None
    arch: str  # Go's names: amd64, arm64
    size_bytes: int = 0
    rivals: tuple[str, ...] = ()  # further digests of the same repository: only the registry can tell which one it has

    @property
    def pinned(self) -> str:
        """What pods record: the digest reference, or the id of an image that no registry has."""
        return self.digest_ref or self.id


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image that a node holds, with all its names. Sizes of a listing are rounded by the engine."""

    id: str
    names: tuple[str, ...]  # "repo:tag" and "repo@sha256:..."
    size_bytes: int


def go_arch(machine: str) -> str:
    """Go's name for what `uname -m` or an engine calls an architecture."""
    return _ARCHITECTURES.get(machine, machine)


def is_image_id(reference: str) -> bool:
    """Whether it names an image by its id alone, which no registry can serve."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", reference) is not None


def check_reference(reference: str) -> None:
    """Raises `InvalidError` unless it is an image reference or id, as engines read them."""
    if not is_image_id(reference) and (len(reference) > 512 or _REFERENCE.fullmatch(reference) is None):
        raise InvalidError(
            f'"{reference[:200]}" is not an image reference',
            hint="Write [REGISTRY/]NAME[:TAG] or NAME@sha256:DIGEST; the name is in lower case.",
        )


def qualified(reference: str) -> str:
    """The reference with its registry, as Docker understands short names; Podman would ask or search."""
    if is_image_id(reference):
        return reference
    match = _REFERENCE.fullmatch(reference)
    if match is None or match["registry"]:
        return reference
    return f"docker.io/{reference}" if "/" in match["path"] else f"docker.io/library/{reference}"


def engine_reference(engine: EngineName, reference: str) -> str:
    """How to name the image to this engine."""
    return qualified(reference) if engine == "podman" else reference


def repository(reference: str) -> str:
    """The qualified reference without tag and digest."""
    head = qualified(reference).partition("@")[0]
    slash, colon = head.rfind("/"), head.rfind(":")
    return head[:colon] if colon > slash else head


def parse_image(line: str, reference: str) -> ImageInfo:
    """The image in one line of `image_template`. Of several digests, the one of the reference's repository counts."""
    data = json.loads(line)
    digests = [str(digest) for digest in data.get("Digests") or () if "<none>" not in str(digest)]
    # Podman makes a digest up for an image that was loaded as localhost/NAME: there is no registry that knows it.
    mine = [d for d in digests if repository(d) == repository(reference) and not d.startswith("localhost/")]
    if "@" in reference and any(d.partition("@")[2] == reference.partition("@")[2] for d in mine):
        mine = [d for d in mine if d.partition("@")[2] == reference.partition("@")[2]]
    return ImageInfo(
        reference=reference,
        id=image_id(str(data["Id"])),
        digest_ref=mine[0] if mine and not is_image_id(reference) else None,
        arch=go_arch(str(data.get("Arch") or "")),
        size_bytes=int(data.get("Size") or 0),
        rivals=tuple(mine[1:]),
    )


def parse_image_list(text: str) -> tuple[ListedImage, ...]:
    """The images of a listing with `LIST_TEMPLATE`, in the engine's order, newest first."""
    names: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        columns = line.split("\t")
        if len(columns) != 5:
            continue
        identifier, repo, tag, digest, size = columns
        known = names.setdefault(image_id(identifier), [])
        sizes[image_id(identifier)] = _size(size)
        for name, present in ((f"{repo}:{tag}", tag), (f"{repo}@{digest}", digest)):
            if "<none>" not in (repo, present) and present and name not in known:
                known.append(name)
    return tuple(ListedImage(key, tuple(value), sizes[key]) for key, value in names.items())


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9.]+)\s*([kKMGT]?B)", text.strip())
    return round(float(match[1]) * _UNITS[match[2].upper()]) if match else 0


def prunable(
    brought: Iterable[str], held: Iterable[ListedImage], used: Collection[str], keep: Collection[str]
) -> tuple[str, ...]:
    """Ids that may go: korch brought them, the node holds them, no container uses them, nobody wants to keep them.

    `used` are image ids of all containers of the node, `keep` ids, tags or digest references. An image with two or
    more tags stays: someone else gave it a name.
    """
    images = {image.id: image for image in held}
    keep_ids = {image_id(reference) for reference in keep}
    keep_names = {qualified(reference) for reference in keep}
    result = []
    for identifier in sorted(set(brought)):
        image = images.get(identifier)
        if image is None or identifier in used or identifier in keep_ids:
            continue
        names = {qualified(name) for name in image.names}
        tags = [name for name in names if "@" not in name]
        if not names & keep_names and len(tags) < 2:
            result.append(identifier)
    return tuple(result)
