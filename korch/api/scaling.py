"""The Scale of an object (autoscaling/v1): where its replicas stand, read and written.

Workloads have them in places that everybody knows; a custom kind's definition names the places.
"""

from typing import Any, Protocol

from msgspec.structs import replace

from korch.api.target import Target
from korch.api.writing import plain
from korch.resources.codec import to_dict
from korch.resources.crd import CustomResourceSubresourceScale
from korch.resources.meta import LabelSelector, Object

Json = dict[str, Any]
_META = ("name", "namespace", "uid", "creationTimestamp")


class Scaling(Protocol):
    """How one kind is scaled."""

    def read(self, obj: Any) -> Json:
        """`spec` and `status` of its Scale."""
        ...

    def written(self, obj: Any, replicas: int) -> Object:
        """The object with another number wished for."""
        ...

    def wish(self, replicas: int) -> Json:
        """The part of an object that wishes for that number."""
        ...


def scale_of(scaling: Scaling, obj: Object) -> Json:
    """The Scale of an object."""
    meta = to_dict(obj)["metadata"]
    shown = {key: meta[key] for key in _META if key in meta}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {**shown, "resourceVersion": obj.metadata.resource_version},
        **scaling.read(obj),
    }


class Workloads:
    """Deployments and ReplicaSets."""

    def read(self, obj: Any) -> Json:
        """`spec` and `status` of the Scale."""
        status: Json = {"replicas": obj.status.replicas}
        if text := selector_text(obj.spec.selector):
            status["selector"] = text
        return {"spec": {"replicas": 1 if obj.spec.replicas is None else obj.spec.replicas}, "status": status}

    def written(self, obj: Any, replicas: int) -> Object:
        """The object with another number wished for."""
        made: Object = replace(obj, spec=replace(obj.spec, replicas=replicas))
        return made

    def wish(self, replicas: int) -> Json:
        """The part of an object that wishes for that number."""
        return {"spec": {"replicas": replicas}}


class Customs:
    """Objects of a custom kind, by the paths in its definition."""

    def __init__(self, target: Target, paths: CustomResourceSubresourceScale) -> None:
        self._target, self._paths = target, paths

    def read(self, obj: Object) -> Json:
        """`spec` and `status` of the Scale; what is not there is 0."""
        data = to_dict(obj)
        status: Json = {"replicas": _number(data, self._paths.status_replicas_path)}
        selector = _at(data, self._paths.label_selector_path or "")
        if isinstance(selector, str):
            status["selector"] = selector
        return {"spec": {"replicas": _number(data, self._paths.spec_replicas_path)}, "status": status}

    def written(self, obj: Object, replicas: int) -> Object:
        """The object with another number wished for, checked by its schema."""
        data = plain(self._target.kind, obj)
        *outer, last = _steps(self._paths.spec_replicas_path)
        inner = data = {**data}
        for step in outer:
            below = inner.get(step)
            inner[step] = inner = {**below} if isinstance(below, dict) else {}
        inner[last] = replicas
        return self._target.typed(data, "Ignore").obj

    def wish(self, replicas: int) -> Json:
        """The part of an object that wishes for that number."""
        made: Any = replicas
        for step in reversed(_steps(self._paths.spec_replicas_path)):
            made = {step: made}
        found: Json = made
        return found


def _steps(path: str) -> list[str]:
    """`.spec.replicas` as its names."""
    return [step for step in path.split(".") if step] or ["spec", "replicas"]


def _at(data: Any, path: str) -> Any:
    for step in _steps(path) if path else ():
        data = data.get(step) if isinstance(data, dict) else None
    return data


def _number(data: Json, path: str) -> int:
    found = _at(data, path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def selector_text(selector: LabelSelector) -> str:
    """A selector as it is written in queries."""
    words = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for term in selector.match_expressions:
        values = ",".join(term.values)
        match term.operator:
            case "In":
                words.append(f"{term.key} in ({values})")
            case "NotIn":
                words.append(f"{term.key} notin ({values})")
            case "Exists":
                words.append(term.key)
            case _:
                words.append(f"!{term.key}")
    return ",".join(words)
