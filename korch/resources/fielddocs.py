"""The text of `docs/FIELDS.md`: what korch does with each field of a manifest, from the types and the rules themselves.

Written anew by: python -c "from korch.resources import fielddocs as f; print(f.field_docs(), end='')" >docs/FIELDS.md
"""

from collections.abc import Iterator

import msgspec
from msgspec import inspect

from korch.resources.autoscaling import HorizontalPodAutoscalerSpec
from korch.resources.batch import CronJobSpec, JobSpec
from korch.resources.config import ConfigMap, ServiceAccount
from korch.resources.crd import CustomResourceDefinitionSpec
from korch.resources.disruption import PodDisruptionBudgetSpec
from korch.resources.fields import RULES, context_of, rule_for, struct_fields
from korch.resources.history import ControllerRevision
from korch.resources.meta import ObjectMeta
from korch.resources.misc import Namespace, Secret
from korch.resources.pod import PodSpec
from korch.resources.service import EndpointSlice, ServiceSpec
from korch.resources.workload import DaemonSetSpec, DeploymentSpec, ReplicaSetSpec

_HEAD = """# What korch does with each field of a manifest

This file is made from the code (`korch/resources/fields.py`); a test fails when it is not current.

- **honoured**: korch does what Kubernetes does.
- **warned**: accepted, and a warning says why it has no effect. Harmless to leave in.
- **refused**: ignoring it would be wrong or unsafe, so the manifest is refused with the reason. Empty values, and those
  that say what korch does anyway (such as `hostNetwork: false`), pass.

A field that is not listed here is a mistake: the error names file, line and path, and a field that looks like it.
`status` is always accepted with a warning. Resources are `cpu` and `memory`; other names are refused.

Kept for clients to read, and not enforced, which a warning says at each write: Ingress, IngressClass, NetworkPolicy,
ResourceQuota, LimitRange, PriorityClass, StorageClass.
"""
_SECTIONS: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("metadata of all kinds", "metadata", ObjectMeta),
    ("Deployment", "spec", DeploymentSpec),
    ("ReplicaSet", "spec", ReplicaSetSpec),
    ("DaemonSet", "spec", DaemonSetSpec),
    ("Pod, and spec.template of workloads", "spec", PodSpec),
    ("PodDisruptionBudget", "spec", PodDisruptionBudgetSpec),
    ("Job, and spec.jobTemplate of CronJobs", "spec", JobSpec),
    ("CronJob", "spec", CronJobSpec),
    ("HorizontalPodAutoscaler", "spec", HorizontalPodAutoscalerSpec),
    ("Service", "spec", ServiceSpec),
    ("EndpointSlice", "", EndpointSlice),
    ("ConfigMap", "", ConfigMap),
    ("Secret", "", Secret),
    ("ServiceAccount", "", ServiceAccount),
    ("Namespace", "", Namespace),
    ("ControllerRevision", "", ControllerRevision),
    ("CustomResourceDefinition", "spec", CustomResourceDefinitionSpec),
)
_FIRST = "as containers; lifecycle, probes and hostPort are for those that go on (restartPolicy Always)"
_APART = {"ObjectMeta": "see metadata", "PodTemplateSpec": "see Pod", "JobTemplateSpec": "see Job"}


def field_docs() -> str:
    """The whole file."""
    return _HEAD + "".join(_section(title, path, type_) for title, path, type_ in _SECTIONS)


def _section(title: str, path: str, type_: type[msgspec.Struct]) -> str:
    rows = "".join(f"| `{where}` | {what} | {why} |\n" for where, what, why in _rows(type_, type_.__name__, path))
    return f"\n## {title}\n\n| field | korch | remark |\n|---|---|---|\n{rows}"


def _rows(type_: type[msgspec.Struct], context: str, path: str) -> Iterator[tuple[str, str, str]]:
    fields = struct_fields(type_)
    for name, field in fields.items():
        where = f"{path}.{name}" if path else name
        rule = rule_for(context, name)
        if name in ("apiVersion", "kind", "status"):
            continue
        if rule is not None:
            yield where, rule.treatment, rule.why
            continue
        inner, suffix = _struct_in(field.type)
        if name == "initContainers":
            yield where + suffix, "honoured", _FIRST
        elif inner is None or inner.__name__ in _APART:
            yield where + suffix, "honoured", "" if inner is None else _APART[inner.__name__]
        else:
            yield from _rows(inner, context_of(context, name, inner), where + suffix)
    for name, rule in RULES.get(context, {}).items():
        if name not in fields:
            yield f"{path}.{name}" if path else name, rule.treatment, rule.why


def _struct_in(type_: inspect.Type) -> tuple[type[msgspec.Struct] | None, str]:
    """The struct that a field holds, if any, and `[]` when it is a list of them."""
    options = type_.types if isinstance(type_, inspect.UnionType) else (type_,)
    for option in options:
        if isinstance(option, inspect.StructType):
            return option.cls, ""
        if isinstance(option, inspect.VarTupleType):
            return _struct_in(option.item_type)[0], "[]"
    return None, ""
