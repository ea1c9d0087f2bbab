"""Where korch keeps its things and which cluster is meant: read once at the edge, then passed down."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from korch.errors import InvalidError, NotFoundError


class Settings(msgspec.Struct, frozen=True):
    """`home` holds everything that korch writes on this machine (0700). `inventories` as given, maybe empty."""

    home: Path
    cluster: str
    inventories: tuple[str, ...] = ()
    host_key: str = ""  # "strict" or "accept-new" when somebody typed it; else ssh's configuration counts

    @property
    def cluster_dir(self) -> Path:
        """The folder of this cluster: state, load history, accepted host keys."""
        return self.home / "clusters" / self.cluster

    @property
    def state_file(self) -> Path:
        """The SQLite store."""
        return self.cluster_dir / "state.db"

    @property
    def secrets_key(self) -> Path:
        """The keys that Secrets are sealed with; without them the state's Secrets cannot be read."""
        return self.cluster_dir / "secrets.key"

    @property
    def known_hosts(self) -> Path:
        """Host keys that korch was told to trust, beside the user's own known_hosts."""
        return self.cluster_dir / "known_hosts"


def no_such_cluster(settings: Settings) -> NotFoundError:
    """The error for a cluster that is not there: it names those that are, and how one is made."""
    others = sorted(path.parent.name for path in settings.home.glob("clusters/*/state.db"))
    make = "Make it by naming an inventory once: korch nodes -i hosts.yml (or user@host1,host2 / vagrant / lab)."
    first = others[0] if others else ""
    known = f"There is {', '.join(others)}: give --cluster {first}, or set KORCH_CLUSTER={first}. " if others else ""
    return NotFoundError(f'cluster "{settings.cluster}" does not exist on this machine', hint=known + make)


def korch_home(environ: Mapping[str, str] = os.environ) -> Path:
    """KORCH_HOME, default `~/.korch`."""
    return Path(environ.get("KORCH_HOME") or "~/.korch").expanduser().absolute()


def read_settings(
    *,
    cluster: str | None = None,
    inventories: tuple[str, ...] = (),
    host_key: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Flags win over KORCH_CLUSTER, KORCH_INVENTORY (several sources separated by `;`) and KORCH_HOST_KEY."""
    sources = inventories or _inventories_from(environ.get("KORCH_INVENTORY", ""))
    name = cluster or environ.get("KORCH_CLUSTER") or _implied_cluster(sources)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise InvalidError(f'cluster name "{name}" is not a DNS label', hint="Use a-z, 0-9 and -, at most 63 of them.")
    key_policy = host_key or environ.get("KORCH_HOST_KEY") or ""
    if key_policy not in {"", "strict", "accept-new"}:
        raise InvalidError(f'host key policy "{key_policy}" is not known', hint="Use strict or accept-new.")
    return Settings(korch_home(environ), name, sources, key_policy)


def _inventories_from(value: str) -> tuple[str, ...]:
    """Several sources in one variable are separated by `;` (`,` separates the hosts of a plain list)."""
    return tuple(part.strip() for part in value.split(";") if part.strip())


def _implied_cluster(sources: tuple[str, ...]) -> str:
    """`-i lab` means cluster lab, `-i vagrant:DIR` one named after the folder, all else the cluster "default"."""
    if len(sources) == 1 and sources[0] == "lab":
        return "lab"
    if len(sources) == 1 and (sources[0] == "vagrant" or sources[0].startswith("vagrant:")):
        folder = Path(sources[0].partition(":")[2] or ".").absolute().name.lower()
        return re.sub(r"[^a-z0-9]+", "-", folder).strip("-")[:63] or "default"
    return "default"
