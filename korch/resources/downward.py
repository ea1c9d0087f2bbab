"""What a pod says of itself to its containers: fields, and requests and limits. Pure."""

import json
import math
import re
from collections.abc import Mapping

from korch.errors import InvalidError
from korch.resources.pod import Container, Pod, ResourceFieldSelector
from korch.resources.quantity import parse_quantity

_PATHS = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "status.hostIP")
_ACCOUNT = "spec.serviceAccountName"
_WHOLE = ("metadata.labels", "metadata.annotations")
_KEY = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_RESOURCE = re.compile(r"(limits|requests)\.(cpu|memory)")


def field_problem(path: str, *, of_file: bool = False) -> str:
    """Why a container cannot be told this field, or ""; a file can also hold all labels or annotations."""
    if path in (*_PATHS, _ACCOUNT) or _KEY.fullmatch(path) or (of_file and path in _WHOLE):
        return ""
    known = (*_PATHS, _ACCOUNT, "metadata.labels['KEY']", "metadata.annotations['KEY']", *(_WHOLE if of_file else ()))
    return f'"{path}" is not one of {", ".join(known)}'


def resource_problem(selector: ResourceFieldSelector, container: Container) -> str:
    """Why a container cannot be told this request or limit, or ""."""
    match = _RESOURCE.fullmatch(selector.resource)
    if match is None:
        return f'"{selector.resource}" is not one of limits.cpu, limits.memory, requests.cpu, requests.memory'
    if match[2] not in _given(container, match[1]):
        return f"container {container.name} sets no {selector.resource}"
    try:
        fits = selector.divisor in (None, 0, "0", "") or parse_quantity(selector.divisor or 1) > 0
    except InvalidError as error:
        return str(error)
    return "" if fits else f"divisor {selector.divisor} is not more than 0"


def field_text(pod: Pod, path: str, node: Mapping[str, str]) -> str:
    """A field of the pod, or of the node that it runs on (by path); all labels as lines KEY="VALUE"."""
    if path in node:
        return node[path]
    meta = pod.metadata
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        _ACCOUNT: pod.spec.service_account_name or "default",
        "metadata.labels": _lines(meta.labels),
        "metadata.annotations": _lines(meta.annotations),
    }
    if path in simple:
        return simple[path]
    match = _KEY.fullmatch(path)
    if match is None:
        raise InvalidError(f'pod {meta.name}: fieldPath "{path}" is not known')
    return (meta.labels if match[1] == "labels" else meta.annotations).get(match[2], "")


def resource_text(selector: ResourceFieldSelector, container: Container) -> str:
    """A request or limit in units of the divisor (a whole CPU, a byte), rounded up."""
    problem = resource_problem(selector, container)
    if problem:
        raise InvalidError(problem)
    kind, _, name = selector.resource.partition(".")
    divisor = parse_quantity(selector.divisor) if selector.divisor not in (None, 0, "0", "") else parse_quantity(1)
    return str(math.ceil(parse_quantity(_given(container, kind)[name]) / divisor))


def _given(container: Container, kind: str) -> dict[str, str | int | float]:
    return container.resources.limits if kind == "limits" else container.resources.requests


def _lines(texts: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={json.dumps(texts[key], ensure_ascii=False)}" for key in sorted(texts))
