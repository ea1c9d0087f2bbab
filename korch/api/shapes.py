"""What must stand in an answer though it is zero or empty.

korch's records leave out what has its default. Clients with strict types (Go's, pydantic's) need some of that: the
fields that Kubernetes' OpenAPI calls required. They are listed here by the type that has them.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect

from korch.resources.fields import struct_fields

Fill = Callable[[Any], None]

# Type → its fields that are always there, with what stands for nothing.
REQUIRED: dict[str, dict[str, Any]] = {
    "PodStatus": {"phase": "Pending"},
    "ContainerStatus": {"image": "", "imageID": "", "ready": False, "restartCount": 0},
    "ContainerStateTerminated": {"exitCode": 0},
    "ReplicaSetStatus": {"replicas": 0},
    "StatefulSetStatus": {"replicas": 0},
    "DaemonSetStatus": {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "PodDisruptionBudgetStatus": {
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "disruptionsAllowed": 0,
        "expectedPods": 0,
    },
    "HorizontalPodAutoscalerStatus": {"desiredReplicas": 0},
    "NodeSystemInfo": dict.fromkeys(
        (
            *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion"),
            *("kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture"),
        ),
        "",
    ),
    "NodeStatus": {"nodeInfo": {}},
    "Event": {"involvedObject": {}},
    "ControllerRevision": {"revision": 0},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": []},
    "Endpoint": {"addresses": []},
    "Role": {"rules": []},
    "ClusterRole": {"rules": []},
    "DeploymentSpec": {"selector": {}, "template": {}},
    "ReplicaSetSpec": {"selector": {}},
    "DaemonSetSpec": {"selector": {}, "template": {}},
    "PodSpec": {"containers": [], "securityContext": {}},  # `kubectl debug` takes the second for granted
    "JobSpec": {"template": {}},
}
_ALWAYS = frozenset({"NodeStatus", "PodStatus"})  # made where its holder lacks it; others only where they stand already


def fill(type_: type[msgspec.Struct], data: dict[str, Any]) -> dict[str, Any]:
    """`data` of that type with its required fields; it is changed and given back."""
    filler = _filler(type_)
    if filler is not None:
        filler(data)
    return data


@lru_cache(maxsize=512)
def _filler(type_: type[msgspec.Struct]) -> Fill | None:
    """What fills one struct, or None when nothing in it needs it."""
    own = REQUIRED.get(type_.__name__, {})
    inner: dict[str, tuple[Fill, bool]] = {}
    for name, info in struct_fields(type_).items():
        found = _struct_in(info.type)
        if found is None or found[0] is type_:
            continue
        nested = _filler(found[0])
        if nested is not None:
            inner[name] = (nested, found[0].__name__ in _ALWAYS)
    if not own and not inner:
        return None

    def run(data: Any) -> None:
        if isinstance(data, list):
            for item in data:
                run(item)
            return
        if not isinstance(data, dict):
            return
        for name, empty in own.items():
            if name not in data:
                data[name] = empty.copy() if isinstance(empty, dict | list) else empty
        for name, (nested, always) in inner.items():
            value = data.get(name)
            if value is None and always:
                value = data[name] = {}
            if value is not None:
                nested(value)

    return run


def _struct_in(found: inspect.Type) -> tuple[type[msgspec.Struct], bool] | None:
    """The struct that a field holds, alone, optional or in a list; and whether in a list."""
    match found:
        case inspect.StructType():
            return found.cls, False
        case inspect.UnionType():
            return next((inner for option in found.types if (inner := _struct_in(option)) is not None), None)
        case inspect.VarTupleType() | inspect.ListType():
            inner = _struct_in(found.item_type)
            return None if inner is None else (inner[0], True)
        case _:
            return None
