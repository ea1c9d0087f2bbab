"""The fixed shell texts that run on nodes: read from `scripts/*.sh`, without comments and indentation.

Which parts a script is made of stands here; values never become part of a text (see `Script`).
"""

from functools import cache
from importlib.resources import files
from typing import Final

PARTS: Final = {
    "report": ("look", "report"),
    "containers": ("look", "containers"),
    "claim": ("lock", "fence", "claim"),
    "unclaim": ("lock", "fence", "unclaim"),
    "start": ("lock", "fence", "record", "files", "shims", "start"),
    "sandbox": ("lock", "fence", "brought", "sandbox"),
    "place": ("lock", "fence", "files", "place"),
    "remove": ("lock", "fence", "shims", "remove"),
    "image": ("lock", "fence", "brought", "image"),
    "load": ("lock", "fence", "brought", "load"),
    "prune-look": ("prune-look",),
    "prune": ("lock", "fence", "prune"),
    "wish": ("lock", "fence", "record", "wish"),
    "wishes": ("wishes",),
    "logs": ("logs",),
    "container": ("container",),
    "session": ("session",),
    "processes": ("processes",),
    "usage": ("usage",),
    "unprobe": ("unprobe",),
}
NAMES: Final = tuple(PARTS)


@cache
def script_text(name: str) -> str:
    """The whole text of a script: `base.sh`, the parts it uses, itself."""
    return "".join(script_part(part) for part in ("base", *PARTS[name]))


@cache
def script_part(name: str) -> str:
    """One file of `scripts/`, without comments and indentation."""
    lines = (files("korch.nodes") / "scripts" / f"{name}.sh").read_text(encoding="utf-8").splitlines()
    stripped = (line.strip() for line in lines)
    return "".join(f"{line}\n" for line in stripped if line and not line.startswith("#"))
