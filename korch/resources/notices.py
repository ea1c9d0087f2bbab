"""What whoever writes an object should be told: fields without effect, kinds that are kept and not enforced. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from korch.resources.fields import META_RULES, Rule, context_of, rule_for, struct_fields
from korch.resources.kinds import Kind
from korch.resources.problems import Problem
from korch.resources.service import NO_ADDRESS

_NOT_ENFORCED = {
    "Role": "is kept, and not enforced: access is by korch's own roles (see `korch kubeconfig --help`)",
    "Ingress": "is kept, and nothing serves it: korch runs no ingress controller",
    "IngressClass": "is kept; korch runs no ingress controller",
    "NetworkPolicy": "is kept, and not enforced: containers reach each other as the engines allow",
    "ResourceQuota": "is kept, and not enforced",
    "LimitRange": "is kept, and not enforced: give resources to each container",
    "PriorityClass": "is kept; all pods have the same priority",
    "StorageClass": "is kept; volumes are the engines' (csi driver volumes.korch.dev)",
}
for _name in ("ClusterRole", "RoleBinding", "ClusterRoleBinding"):
    _NOT_ENFORCED[_name] = _NOT_ENFORCED["Role"]
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
    text = _NOT_ENFORCED.get(kind.name, "")
    return f"a {kind.name} {text}" if text else ""


def field_notices(kind: Kind, data: dict[str, Any]) -> list[Problem]:
    """Fields of plain data that are accepted and have no effect, each with its path and why."""
    return [Problem(path, rule.why) for path, rule in _ruled(data, kind) if rule.treatment == "warned"]


def field_refusals(kind: Kind, data: dict[str, Any]) -> list[Problem]:
    """Fields of plain data that cannot be ignored, each with its path and why."""
    return [
        Problem(path, f"is refused: {rule.why}") for path, rule in _ruled(data, kind) if rule.treatment == "refused"
    ]


def _ruled(data: dict[str, Any], kind: Kind) -> Iterator[tuple[str, Rule]]:
    return _struct(data, kind.type, kind.type.__name__, "")


def _struct(data: dict[str, Any], type_: type[msgspec.Struct], context: str, path: str) -> Iterator[tuple[str, Rule]]:
    fields = struct_fields(type_)
    for name, value in data.items():
        where = f"{path}.{name}" if path else name
        rule = rule_for(context, name)
        if (name == "status" and rule is not None) or (rule is not None and rule is META_RULES.get(name)):
            continue  # every client sends back what it has read
        if rule is not None:
            if rule.applies(value):
                yield where, rule
        elif name in fields:
            yield from _inside(value, fields[name].type, (context, name), where)


def _inside(value: Any, type_: inspect.Type, holder: tuple[str, str], path: str) -> Iterator[tuple[str, Rule]]:
    for option in type_.types if isinstance(type_, inspect.UnionType) else (type_,):
        if isinstance(option, inspect.StructType) and isinstance(value, dict):
            yield from _struct(value, option.cls, context_of(*holder, option.cls), path)
        elif isinstance(option, inspect.VarTupleType) and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _inside(item, option.item_type, holder, f"{path}[{index}]")
