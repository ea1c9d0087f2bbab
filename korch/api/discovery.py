"""Discovery: which groups, versions and resources there are, in the aggregated form and in the older one.

kubectl reads the aggregated form; `kubectl drain`, `auth can-i` and the Python clients read the older one.
"""

from collections.abc import Sequence
from typing import Any

from korch.api import registry
from korch.api.registry import Subresource, Virtual
from korch.api.versions import Version
from korch.resources.kinds import Kind

Customs = Sequence[Version]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def wants_aggregated(accept: str) -> bool:
    """Whether the client reads the aggregated form."""
    return any(
        {"as=APIGroupDiscoveryList", "v=v2", "g=apidiscovery.k8s.io"} <= {part.strip() for part in choice.split(";")}
        for choice in accept.split(",")
    )


def aggregated(customs: Customs = (), *, core: bool) -> dict[str, Any]:
    """The core group, or all the others, with everything in them."""
    items = []
    for group, versions in registry.groups(customs).items():
        if (not group) != core:
            continue
        meta = {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None}
        items.append({"metadata": meta, "versions": [_version(group, version, customs) for version in versions]})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _version(group: str, version: str, customs: Customs) -> dict[str, Any]:
    resources = [_aggregated_resource(found) for found in registry.resources_of(group, version, customs)]
    return {"version": version, "resources": resources, "freshness": "Current"}


def _aggregated_resource(found: Kind | Virtual) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "resource": found.plural,
        "responseKind": {"group": found.group, "version": found.version, "kind": found.name},
        "scope": "Namespaced" if found.namespaced else "Cluster",
        "singularResource": found.singular,
        "verbs": list(_verbs(found)),
    }
    if found.short:
        shown["shortNames"] = list(found.short)
    if isinstance(found, Kind):
        if found.categories:
            shown["categories"] = list(found.categories)
        parts = [
            {
                "subresource": part.name,
                "responseKind": {"group": part.group, "version": part.version, "kind": part.kind},
                "verbs": list(part.verbs),
            }
            for part in registry.subresources(found)
        ]
        if parts:
            shown["subresources"] = parts
    return shown


def _verbs(found: Kind | Virtual) -> tuple[str, ...]:
    return registry.verbs_of(found) if isinstance(found, Kind) else found.verbs


def core_versions(address: str) -> dict[str, Any]:
    """`/api` in the older form."""
    return {
        "kind": "APIVersions",
        "versions": registry.groups()[""],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(customs: Customs = ()) -> dict[str, Any]:
    """`/apis` in the older form."""
    groups = registry.groups(customs)
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, found) for name, found in groups.items() if name],
    }


def one_group(name: str, customs: Customs = ()) -> dict[str, Any] | None:
    """`/apis/GROUP`, or None."""
    found = registry.groups(customs).get(name)
    if not name or found is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, found)}


def _group(name: str, found: Sequence[str]) -> dict[str, Any]:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in found]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resource_list(group: str, version: str, customs: Customs = ()) -> dict[str, Any] | None:
    """`/api/v1` and `/apis/GROUP/VERSION`, or None."""
    if version not in registry.groups(customs).get(group, ()):
        return None
    entries = [entry for found in registry.resources_of(group, version, customs) for entry in _entries(found)]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def _entries(found: Kind | Virtual) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": found.plural,
        "singularName": found.singular,
        "namespaced": found.namespaced,
        "kind": found.name,
        "verbs": list(_verbs(found)),
    }
    if found.short:
        entry["shortNames"] = list(found.short)
    if not isinstance(found, Kind):
        return [entry]
    if found.categories:
        entry["categories"] = list(found.categories)
    return [entry, *(_part_entry(found, part) for part in registry.subresources(found))]


def _part_entry(kind: Kind, part: Subresource) -> dict[str, Any]:
    """A part whose kind is of another group names that group: `kubectl drain` looks for it."""
    foreign = {"group": part.group, "version": part.version} if part.group != kind.group else {}
    return {
        "name": f"{kind.plural}/{part.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        **foreign,
        "kind": part.kind,
        "verbs": list(part.verbs),
    }
