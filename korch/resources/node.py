"""Node: a machine of the inventory, and its newest load sample."""

import msgspec

from korch.resources.meta import Condition, Object, Struct


class Taint(Struct, frozen=True, kw_only=True):
    """Keeps pods away that do not tolerate it. `effect`: NoSchedule, PreferNoSchedule, NoExecute."""

    key: str
    effect: str
    value: str = ""
    time_added: str | None = None


class NodeSpec(Struct, frozen=True, kw_only=True):
    """`unschedulable` is what `korch node cordon` sets."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(Struct, frozen=True, kw_only=True):
    """`type`: InternalIP (the node address), Hostname, ExternalIP (the SSH address)."""

    type: str
    address: str


class NodeSystemInfo(Struct, frozen=True, kw_only=True):
    """What the machine says of itself."""

    machine_id: str = msgspec.field(default="", name="machineID")
    system_uuid: str = msgspec.field(default="", name="systemUUID")
    boot_id: str = msgspec.field(default="", name="bootID")
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""  # "docker://20.10.24"
    kubelet_version: str = ""  # korch's version: the keeper is the kubelet
    kube_proxy_version: str = ""
    operating_system: str = ""
    architecture: str = ""  # Go's names: amd64, arm64


class ContainerImage(Struct, frozen=True, kw_only=True):
    """An image that the node holds."""

    names: tuple[str, ...] = ()
    size_bytes: int = 0


class NodeStatus(Struct, frozen=True, kw_only=True):
    """Last seen. The node's state is the `reason` of condition Ready."""

    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    node_info: NodeSystemInfo = NodeSystemInfo()
    images: tuple[ContainerImage, ...] = ()
    volumes_in_use: tuple[str, ...] = ()  # named volumes of korch that live on this node


class Node(Object, frozen=True, kw_only=True):
    """core/v1 Node."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NodeLoad(Object, frozen=True, kw_only=True):
    """korch.dev/v1 NodeLoad: the newest sample. Ratios are 0..1 of the whole machine; None where unknown."""

    sampled_at: str | None = None  # the master's clock
    load1: float = 0.0
    load5: float = 0.0
    load15: float = 0.0
    cpu_count: int = 1
    cpu_busy: float | None = None
    cpu_busy_smoothed: float | None = None  # exponentially smoothed; what the scheduler uses
    cpu_ticks: tuple[int, int] | None = None  # (busy, total) jiffies as read, for the next difference
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    disk_total_bytes: int = 0
    disk_free_bytes: int = 0
    pressure_cpu: float | None = None  # PSI some avg10, 0..1
    pressure_memory: float | None = None
    pressure_io: float | None = None
    clock_offset_seconds: float | None = None  # node minus master


def node_address(node: Node | None, type_: str = "InternalIP") -> str:
    """The node's address of one type, "" while none is on record."""
    known = node.status.addresses if node is not None else ()
    return next((found.address for found in known if found.type == type_), "")
