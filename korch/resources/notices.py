"""What whoever writes an object should be told of its kind: some are kept and not enforced. Pure."""

from typing import Any

from korch.resources.kinds import Kind
from korch.resources.service import NO_ADDRESS

_NOT_ENFORCED = {
    "Ingress": "is kept, and nothing serves it: korch runs no ingress controller",
    "IngressClass": "is kept; korch runs no ingress controller",
    "NetworkPolicy": "is kept, and not enforced: containers reach each other as the engines allow",
    "ResourceQuota": "is kept, and not enforced",
    "LimitRange": "is kept, and not enforced: give resources to each container",
    "PriorityClass": "is kept; all pods have the same priority",
    "StorageClass": "is kept; volumes are the engines' (csi driver volumes.korch.dev)",
}
_OF_ACCOUNTS = "kubernetes.io/service-account-token"
_SERVICE = "has no virtual address yet: its endpoints are node addresses and published ports of its pods"
_OUTSIDE = "opens no port of its own: clients use the node addresses and published ports of its pods"


def kind_notice(kind: Kind, data: dict[str, Any]) -> str:
    """A sentence about an object (plain data) as a whole, or ""."""
    if kind.name == "Service":
        spec = data.get("spec")
        spec = spec if isinstance(spec, dict) else {}
        type_ = spec.get("type") or "ClusterIP"
        if type_ in ("NodePort", "LoadBalancer"):
            return f"a Service of type {type_} {_OUTSIDE}"
        wanted = type_ == "ClusterIP" and spec.get("clusterIP") != NO_ADDRESS
        return f"a Service {_SERVICE}" if wanted else ""
    if kind.name == "Secret" and data.get("type") == _OF_ACCOUNTS:
        return f"a Secret of type {_OF_ACCOUNTS} gets no token: use `kubectl create token ACCOUNT --duration=8760h`"
    text = _NOT_ENFORCED.get(kind.name, "")
    return f"{'an' if kind.name[0] in 'AEIO' else 'a'} {kind.name} {text}" if text else ""
