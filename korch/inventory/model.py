"""Hosts as the inventories describe them."""

from typing import Literal

import msgspec

from korch.errors import NotFoundError
from korch.inventory.patterns import select_hosts
from korch.inventory.tree import did_you_mean


class Host(msgspec.Struct, frozen=True):
    """One machine. `None` means that the inventory does not say: SSH's configuration or the machine itself decides."""

    name: str  # as in the inventory; the Node's name is `node_name(name)`
    address: str  # what `ssh` would be given
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    ssh_args: tuple[str, ...] = ()  # words for ssh, such as ("-o", "ProxyJump=bastion")
    connection: Literal["ssh", "local"] = "ssh"
    become: bool | None = None  # None: try without, then with sudo
    groups: tuple[str, ...] = ()  # sorted, without "all"
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    taints: tuple[str, ...] = ()  # "key=value:NoSchedule"
    engine: Literal["docker", "podman"] | None = None
    node_address: str | None = None  # where published ports bind and other nodes connect
    zone: str | None = None
    max_pods: int | None = None
    reserved: dict[str, str] = msgspec.field(
        default_factory=dict
    )  # {"cpu": "500m", "memory": "256Mi"} kept for the host itself
    shared: bool = False  # may carry another cluster's claim too
    transport: Literal["fabric", "openssh"] = "fabric"  # openssh: the installed `ssh` connects
    origin: str = ""  # "hosts.yml:12", for messages


class Inventory(msgspec.Struct, frozen=True):
    """All hosts of all sources; `limit` restricts placement only, so hosts outside it are here too.

    `groups` has every group with all its hosts, those of its children too, in inventory order; "all" and "ungrouped"
    are always there. `warnings` are sentences for the user: what was left out or not used.
    """

    hosts: tuple[Host, ...]
    groups: dict[str, tuple[str, ...]]
    limit: str = ""
    warnings: tuple[str, ...] = ()

    def select(self, pattern: str) -> frozenset[str]:
        """Names of the hosts that an Ansible pattern means. Raises `InvalidError` for a part that matches nothing."""
        return select_hosts(pattern, tuple(host.name for host in self.hosts), self.groups)

    @property
    def placeable(self) -> frozenset[str]:
        """Names of the hosts within `limit`; all without one."""
        return self.select(self.limit)

    def host(self, name: str) -> Host:
        """The host of that name. Raises `NotFoundError`."""
        found = next((host for host in self.hosts if host.name == name), None)
        if found is None:
            guess = did_you_mean(name, [host.name for host in self.hosts])
            raise NotFoundError(f'host "{name}" is not in the inventory{guess}')
        return found
