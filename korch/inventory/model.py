"""A host as an inventory describes it."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Host:
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
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()  # "key=value:NoSchedule"
    engine: Literal["docker", "podman"] | None = None
    node_address: str | None = None  # where published ports bind and other nodes connect
    zone: str | None = None
    max_pods: int | None = None
    reserved: dict[str, str] = field(
        default_factory=dict
    )  # {"cpu": "500m", "memory": "256Mi"} kept for the host itself
    shared: bool = False  # may carry another cluster's claim too
    origin: str = ""  # "hosts.yml:12", for messages
