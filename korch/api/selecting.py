"""Label and field selectors of requests: which objects a list or a watch is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from korch.api.answers import bad_request
from korch.api.fieldterms import FieldTerm, field_terms, name_in
from korch.errors import InvalidError
from korch.resources.kinds import Kind
from korch.resources.selectors import Selector, parse_selector, requirement_matches

_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

# What can be selected by, beside metadata.name and metadata.namespace: by resource, as Kubernetes has it.
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "pods": {
        **{f"spec.{name}": ("spec", name) for name in ("nodeName", "restartPolicy", "schedulerName", "hostNetwork")},
        "spec.serviceAccountName": ("spec", "serviceAccountName"),
        **{f"status.{name}": ("status", name) for name in ("phase", "podIP", "nominatedNodeName")},
    },
    "nodes": {"spec.unschedulable": ("spec", "unschedulable")},
    "secrets": {"type": ("type",)},
    "namespaces": {"status.phase": ("status", "phase")},
    "replicasets.apps": {"status.replicas": ("status", "replicas")},
    "jobs.batch": {"status.successful": ("status", "succeeded")},
    "events": {
        **{
            f"{word}.{name}": ("involvedObject", name) for word in ("involvedObject", "regarding") for name in _INVOLVED
        },
        "reason": ("reason",),
        "type": ("type",),
        "source": ("source", "component"),
        **dict.fromkeys(("reportingComponent", "reportingController"), ("reportingComponent",)),
    },
}
_ABSENT = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.replicas": "0", "status.successful": "0"}
_INSTEAD = {  # who tells of an event, as older or newer reporters say it
    "source": ("reportingComponent",),
    **dict.fromkeys(("reportingComponent", "reportingController"), ("source", "component")),
}
_ALL = Selector()
_META = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that must all hold; `namespace` "" is all of them."""

    namespace: str = ""
    labels: Selector = _ALL
    fields: tuple[FieldTerm, ...] = ()

    def has(self, namespace: str, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
        """Whether an object with these is meant."""
        if self.namespace and namespace != self.namespace:
            return False
        for term in self.fields:
            if (fields.get(term.field, "") == term.value) is not term.equal:
                return False
        for wanted in self.labels.requirements:  # the usual kind first: this is asked of every object
            if wanted.operator == "In":
                if labels.get(wanted.key) not in wanted.values:
                    return False
            elif not requirement_matches(wanted.key, wanted.operator, wanted.values, labels):
                return False
        return True

    @property
    def name(self) -> str:
        """The one name that is asked for, or ""."""
        return name_in(self.fields)


def selection(kind: Kind, namespace: str, query: Mapping[str, str]) -> Selection:
    """What a list request selects; 400 for a selector that is none, or a field that cannot be selected by."""
    try:
        labels = parse_selector(query.get("labelSelector", ""))
    except InvalidError as error:
        raise bad_request(f"unable to parse requirement: {error}") from error
    return Selection(namespace, labels, _field_terms(kind, query.get("fieldSelector", "")))


def _field_terms(kind: Kind, text: str) -> tuple[FieldTerm, ...]:
    known = (*_META, *_selectable(kind))
    try:
        terms = tuple(field_terms(text))
    except ValueError as error:
        raise bad_request(f"invalid field selector: '{error}'; can't understand it") from error
    for term in terms:
        if term.field not in known:
            raise bad_request(
                f'Unable to find "{kind.api_version}, Resource={kind.plural}" that match field selector "{text}": '
                f"field label not supported: {term.field}"
            )
    return terms


def _selectable(kind: Kind) -> dict[str, tuple[str, ...]]:
    if kind.selectable:
        return {field: tuple(field.split(".")) for field in kind.selectable}
    return FIELDS.get(f"{kind.plural}.{kind.group}" if kind.group else kind.plural, {})


def fields_of(kind: Kind, data: Mapping[str, Any]) -> dict[str, str]:
    """The values of an object that it can be selected by; a missing one is ""."""
    meta = data.get("metadata", {})
    found = {"metadata.name": meta.get("name", ""), "metadata.namespace": meta.get("namespace", "")}
    for field, path in _selectable(kind).items():
        found[field] = _text(_at(data, path) or _at(data, _INSTEAD.get(field, path))) or _ABSENT.get(field, "")
    return found


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
