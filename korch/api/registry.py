"""Which resources the API serves: the kinds that are stored, and those that are only answered (reviews, metrics)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from korch.api.versions import VERSIONS, Version, plain_version
from korch.resources import kinds
from korch.resources.kinds import Kind

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_ONLY = ("get", "list", "watch")
_GIVEN = {"nodes": "nodes come from the inventory: use `korch node` for adding and removing them"}
_MEASURED = {"nodeloads.korch.dev": "it is measured"}


@dataclass(frozen=True, slots=True)
class Virtual:
    """A resource that is answered and not stored."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...]
    short: tuple[str, ...] = ()

    @property
    def singular(self) -> str:
        """As people write one of it."""
        return "" if self.group == "metrics.k8s.io" else self.name.lower()


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of a resource with its own path, and the kind of what is read or written there."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


VIRTUAL: tuple[Virtual, ...] = (
    *(
        Virtual("authorization.k8s.io", "v1", name, f"{name.lower()}s", name == "LocalSubjectAccessReview", ("create",))
        for name in (
            "SelfSubjectAccessReview",
            "SelfSubjectRulesReview",
            "SubjectAccessReview",
            "LocalSubjectAccessReview",
        )
    ),
    *(
        Virtual("authentication.k8s.io", "v1", name, f"{name.lower()}s", False, ("create",))
        for name in ("SelfSubjectReview", "TokenReview")
    ),
    Virtual("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, ("get", "list")),
    Virtual("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True, ("get", "list")),
)
_CHANGE = ("get", "patch", "update")
_STREAM = ("create", "get")


def served(group: str, version: str, plural: str) -> Version | None:
    """What stands behind a path, or None."""
    for kind in kinds.KINDS:
        if kind.plural == plural and kind.group == group and kind.version == version:
            return plain_version(kind)
    for other in VERSIONS:
        if (other.shown.group, other.shown.version, other.shown.plural) == (group, version, plural):
            return other
    return None


def shown_kinds(customs: Sequence[Version] = ()) -> tuple[Kind, ...]:
    """All stored kinds, under each address that they have."""
    return (*kinds.KINDS, *(other.shown for other in (*VERSIONS, *customs)))


def virtual(group: str, version: str, plural: str) -> Virtual | None:
    """The answered kind behind a path, or None."""
    for found in VIRTUAL:
        if found.plural == plural and found.group == group and found.version == version:
            return found
    return None


def is_namespaced(group: str, plural: str) -> bool:
    """Whether such resources are inside namespaces; also of those that nobody knows."""
    every: tuple[Kind | Virtual, ...] = (*kinds.every_kind(), *VIRTUAL)
    return next((found.namespaced for found in every if (found.plural, found.group) == (plural, group)), True)


def verbs_of(kind: Kind) -> tuple[str, ...]:
    """What may be done with objects of a kind."""
    if kind.plural in _GIVEN and not kind.group:
        return ("get", "list", "patch", "update", "watch")
    if kind is kinds.NAMESPACE:  # each of them is a world of its own, as in Kubernetes
        return tuple(verb for verb in VERBS if verb != "deletecollection")
    return READ_ONLY if f"{kind.plural}.{kind.group}" in _MEASURED else VERBS


def why_not(kind: Kind) -> str:
    """Why a verb is missing in `verbs_of`."""
    return (_GIVEN.get(kind.plural, "") if not kind.group else "") or _MEASURED.get(f"{kind.plural}.{kind.group}", "")


def subresources(kind: Kind) -> tuple[Subresource, ...]:
    """The parts of a kind that have paths of their own."""
    found = [Subresource("status", kind.group, kind.version, kind.name, _CHANGE)] if kind.has_status else []
    if kind.scalable:
        found.append(Subresource("scale", "autoscaling", "v1", "Scale", _CHANGE))
    if kind == kinds.POD:
        found += [
            Subresource("attach", "", "v1", "PodAttachOptions", _STREAM),
            Subresource("binding", "", "v1", "Binding", ("create",)),
            Subresource("eviction", "policy", "v1", "Eviction", ("create",)),
            Subresource("exec", "", "v1", "PodExecOptions", _STREAM),
            Subresource("log", "", "v1", "Pod", ("get",)),
            Subresource("portforward", "", "v1", "PodPortForwardOptions", _STREAM),
        ]
    if kind is kinds.SERVICEACCOUNT:
        found.append(Subresource("token", "authentication.k8s.io", "v1", "TokenRequest", ("create",)))
    return tuple(sorted(found, key=lambda part: part.name))


@dataclass(frozen=True, slots=True)
class Served:
    """Objects of a kind, or a part of them, and what may be done with them at all."""

    group: str
    plural: str
    part: str
    namespaced: bool
    verbs: tuple[str, ...]

    @property
    def word(self) -> str:
        """As rules name it."""
        return f"{self.plural}/{self.part}" if self.part else self.plural


def everything() -> Iterator[Served]:
    """All that anybody can ask for: kinds in each group, custom ones too, their parts, and what is answered only."""
    addresses = {
        (kind.group, kind.plural): kind for kind in (*(other.shown for other in VERSIONS), *kinds.every_kind())
    }
    for kind in addresses.values():
        yield Served(kind.group, kind.plural, "", kind.namespaced, verbs_of(kind))
        for part in subresources(kind):
            yield Served(kind.group, kind.plural, part.name, kind.namespaced, part.verbs)
    for other in VIRTUAL:
        yield Served(other.group, other.plural, "", other.namespaced, other.verbs)


def groups(customs: Sequence[Version] = ()) -> dict[str, list[str]]:
    """Group → its versions, the preferred one first; the core group is ""."""
    found: dict[str, list[str]] = {"": []}
    every: tuple[Kind | Virtual, ...] = (*shown_kinds(customs), *VIRTUAL)
    for resource in every:
        versions = found.setdefault(resource.group, [])
        if resource.version not in versions:
            versions.append(resource.version)
    for versions in found.values():
        versions.sort(key=_age)
    return found


def resources_of(group: str, version: str, customs: Sequence[Version] = ()) -> list[Kind | Virtual]:
    """Everything under one group and version, by plural."""
    every: tuple[Kind | Virtual, ...] = (*shown_kinds(customs), *VIRTUAL)
    return sorted(
        (resource for resource in every if (resource.group, resource.version) == (group, version)),
        key=lambda resource: resource.plural,
    )


def _age(version: str) -> tuple[int, int, str]:
    """Stable versions first, the newest of them before the others (`v2` before `v1` before `v1beta1`)."""
    number = version.lstrip("v")
    return (0, -int(number), "") if number.isdigit() else (1, 0, version)
