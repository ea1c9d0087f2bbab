"""Server-side apply: whose fields are whose, kept in managedFields; what an apply changes, removes, and may not touch.

Follows Kubernetes' rules: an apply owns exactly what it says; what it said before and does not say now goes, unless
somebody else owns it; another owner's field with another value is a conflict; equal values are shared; every other
write owns what it changed. https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from korch.api.wire.fieldsets import (
    Changes,
    Path,
    Paths,
    all_fields,
    changes,
    check_lists,
    children,
    from_fields,
    set_fields,
    shown,
    to_fields,
    with_holders,
)
from korch.api.wire.shapes import Shape, shape_of_object
from korch.api.wire.tree import same
from korch.errors import ApplyConflictError, MalformedError

FIRST, ANCIENT = "before-first-apply", "ancient-changes"
MAX_UPDATERS = 10

_SERVERS = (  # metadata that the server gives: nobody owns it
    *("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "clusterName"),
)
_NOBODYS: Paths = frozenset(
    {(f"f:{name}",) for name in ("apiVersion", "kind", "metadata", "spec", "status")}
    | {("f:metadata", f"f:{name}") for name in _SERVERS}
)


@dataclass(frozen=True, slots=True)
class _Owner:
    """One entry of managedFields."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: Paths

    @property
    def key(self) -> tuple[str, ...]:
        """Who it is; appliers are the same whatever version they write."""
        version = "" if self.operation == "Apply" else self.api_version
        return self.manager, self.operation, version, self.subresource

    def __str__(self) -> str:
        text = f'"{self.manager}"'
        text += f' with subresource "{self.subresource}"' if self.subresource else ""
        return text if self.operation == "Apply" else f"{text} using {self.api_version}"


_Owners = dict[tuple[str, ...], _Owner]


def apply(
    live: dict[str, Any] | None,
    applied: dict[str, Any],
    *,
    manager: str,
    force: bool,
    now: str,
    subresource: str = "",
    shape: Shape | None = None,
) -> dict[str, Any]:
    """The object after an apply, with its managedFields; `live` is None when it does not exist yet.

    `now` is RFC 3339 text. `shape` tells how lists of custom objects merge (`shapes.shape_of_schema`). What the server
    gives (uid, resourceVersion...) stays as it is in `live`. Leave `status` out of `applied` where it is written apart.
    `ApplyConflictError` names all fields that others own; `InvalidError`: items of lists that cannot be told apart.
    """
    if _meta(applied).get("managedFields"):
        raise MalformedError("metadata.managedFields must be nil")
    shape, base, applied = shape or shape_of_object(applied), live or {}, _folded(applied)
    check_lists(applied, shape)
    owners = _owners(base) or (_first_owner(base, shape) if live is not None else {})
    wanted = frozenset(set_fields(applied, shape)) - _NOBODYS
    mine = _Owner(manager, "Apply", str(applied.get("apiVersion", "")), subresource, now, wanted)
    last = owners.pop(mine.key, None)
    result = _pruned(merged(base, applied, shape), shape, last, mine, owners)
    _keep_servers_metadata(base, result, created=live is None)
    found = changes(base, result, shape)
    theirs = _conflicts(owners, found)
    if theirs and not force:
        raise _conflict_error([(owners[key], sorted(paths)) for key, paths in sorted(theirs.items())])
    _take_over(owners, found, theirs)
    same_wish = last is not None and last.fields == mine.fields and last.api_version == mine.api_version
    owners[mine.key] = replace(mine, time=last.time) if last is not None and same_wish and not found else mine
    return _with_owners(result, owners)


def _folded(applied: dict[str, Any]) -> dict[str, Any]:
    """A Secret's `stringData` as the `data` that is kept of it, so that its keys are owned, and go when dropped."""
    words, data = applied.get("stringData"), applied.get("data") or {}
    secret = (applied.get("apiVersion"), applied.get("kind")) == ("v1", "Secret")
    if not secret or not isinstance(words, dict) or not isinstance(data, dict):
        return applied
    plain = {key: b64encode(str(text).encode()).decode() for key, text in words.items() if text is not None}
    rest = {key: value for key, value in applied.items() if key != "stringData"}
    return {**rest, "data": {**data, **plain}}


def track_update(
    before: dict[str, Any] | None,
    after: dict[str, Any],
    *,
    manager: str,
    operation: str = "Update",
    subresource: str = "",
    now: str,
    shape: Shape | None = None,
) -> dict[str, Any]:
    """`after` with managedFields: what changed is the manager's now. Give both objects as they are stored.

    managedFields that the writer itself changed count; `[{}]` takes all of them away. Status that comes with anything
    but a write to `status` is nobody's.
    """
    given = _meta(after).get("managedFields")
    if given == [{}]:
        return _with_owners(after, {})
    shape, base = shape or shape_of_object(after), before or {}
    known = _owners(base) or {}
    owners = (_owners(after) or known) if given else known
    found = changes(base, after, shape)
    added, removed, modified = (_relevant(paths, subresource) for paths in (found.added, found.removed, found.modified))
    found = Changes(added, removed, modified)
    mine = _Owner(manager, operation, str(after.get("apiVersion", "")), subresource, now, frozenset())
    last = owners.pop(mine.key, None)
    if found:
        _take_over(owners, found, _conflicts(owners, found))
        fields = ((last.fields if last else frozenset()) - removed) | modified | added
        last = replace(mine, fields=frozenset(fields))
    if last is not None:
        owners[mine.key] = last
    return _with_owners(after, _capped(owners))


def same_but_times(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two objects differ in no more than the times of their managedFields: such a write changes nothing."""
    return same(_without_times(before), _without_times(after))


def _without_times(obj: dict[str, Any]) -> dict[str, Any]:
    meta = _meta(obj)
    entries = [
        {key: value for key, value in entry.items() if key != "time"} for entry in meta.get("managedFields") or ()
    ]
    return {**obj, "metadata": {**meta, "managedFields": entries}}


# --- merging and removing ---


def merged(live: Any, applied: Any, shape: Shape) -> Any:
    """What an apply makes of a value before anything goes: its fields win, items of lists with keys are united."""
    old, new = children(live, shape), children(applied, shape)
    if old is None or new is None or isinstance(live, dict) != isinstance(applied, dict):
        return _bare(applied)
    below = {e: merged(old[e][0], item, inner) if e in old else _bare(item) for e, (item, inner) in new.items()}
    if isinstance(applied, dict):
        return {**live, **{element.removeprefix("f:"): item for element, item in below.items()}}
    return [below[element] if element in below else old[element][0] for element in _united(list(old), list(new))]


def _bare(value: Any) -> Any:
    """A copy without members that are null."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _united(live: list[str], applied: list[str]) -> list[str]:
    """The order of the apply; what only the live list has stays before the item that it stood before."""
    mine, places = set(applied), {element: index for index, element in enumerate(live)}
    result, done = [], 0
    for element in applied:
        end = places.get(element, done)
        result += [one for one in live[done:end] if one not in mine]
        done = max(done, end)
        result.append(element)
    return [*result, *(one for one in live[done:] if one not in mine)]


def _pruned(value: dict[str, Any], shape: Shape, last: _Owner | None, mine: _Owner, others: _Owners) -> dict[str, Any]:
    """Without what the manager said last time, says no longer, and nobody else owns."""
    if last is None or last.fields <= mine.fields:
        return value
    kept = with_holders(mine.fields.union(*(owner.fields for owner in others.values())))
    pruned: dict[str, Any] = _without(value, shape, with_holders(last.fields) - kept - _NOBODYS, ())
    return pruned


def _without(value: Any, shape: Shape, gone: set[Path], at: Path) -> Any:
    below = children(value, shape)
    if below is None:
        return value
    kept = {
        element: _without(item, inner, gone, (*at, element))
        for element, (item, inner) in below.items()
        if (*at, element) not in gone
    }
    return (
        {name.removeprefix("f:"): item for name, item in kept.items()} if isinstance(value, dict) else [*kept.values()]
    )


def _keep_servers_metadata(live: dict[str, Any], result: dict[str, Any], *, created: bool) -> None:
    meta, servers = dict(_meta(result)), _meta(live)
    for name in _SERVERS:
        if name in servers:
            meta[name] = servers[name]
        elif not (created and name in ("name", "namespace")):
            meta.pop(name, None)
    result["metadata"] = meta


# --- owners ---


def _first_owner(live: dict[str, Any], shape: Shape) -> _Owners:
    """Who owns the fields of an object that was made when nobody looked."""
    fields = frozenset(path for path in all_fields(live, shape) if path[0] != "f:status") - _NOBODYS
    first = _Owner(FIRST, "Update", str(live.get("apiVersion", "")), "", "", fields)
    return {first.key: first}


def _relevant(paths: set[Path], subresource: str) -> set[Path]:
    """What a write through a subresource can own: status through `status` only, and nothing else there."""
    return {path for path in paths - _NOBODYS if (path[0] == "f:status") == (subresource == "status")}


def _conflicts(owners: _Owners, found: Changes) -> dict[tuple[str, ...], Paths]:
    """For each owner its fields that would have another value."""
    theirs = {key: owner.fields & found.telling for key, owner in owners.items()}
    return {key: paths for key, paths in theirs.items() if paths}


def _take_over(owners: _Owners, found: Changes, theirs: Mapping[tuple[str, ...], Paths]) -> None:
    for key, owner in list(owners.items()):
        fields = owner.fields - theirs.get(key, frozenset()) - found.removed
        owners[key] = replace(owner, fields=fields)


def _conflict_error(theirs: list[tuple[_Owner, list[Path]]]) -> ApplyConflictError:
    """In the words that clients know."""
    found = [(owner, shown(path)) for owner, paths in theirs for path in paths]
    if len(found) == 1:
        message = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        lines = [
            line for owner, paths in theirs for line in (f"conflicts with {owner}:", *(f"- {shown(p)}" for p in paths))
        ]
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    return ApplyConflictError(
        message,
        tuple((owner.manager, owner.api_version, path) for owner, path in found),
        tuple(f"conflict with {owner}" for owner, _ in found),
    )


def _meta(obj: Mapping[str, Any]) -> dict[str, Any]:
    meta = obj.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise MalformedError("metadata must be a mapping")
    return meta or {}


def _owners(obj: Mapping[str, Any]) -> _Owners | None:
    """The entries of managedFields; None when there are none, or one is not as it should be."""
    entries = _meta(obj).get("managedFields")
    found: _Owners = {}
    for entry in entries if isinstance(entries, list) else ():
        owner = _owner(entry)
        if owner is None:
            return None
        found[owner.key] = owner
    return found or None


def _owner(entry: Any) -> _Owner | None:
    if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
        return None
    fields = from_fields(entry.get("fieldsV1", {}))
    words = {name: entry.get(name) or "" for name in ("manager", "apiVersion", "subresource", "time")}
    if fields is None or not all(isinstance(word, str) for word in words.values()):
        return None
    return _Owner(
        words["manager"], entry["operation"], words["apiVersion"], words["subresource"], words["time"], fields
    )


def _capped(owners: _Owners) -> _Owners:
    """At most so many updaters: the oldest become one."""
    updaters = sorted((o for o in owners.values() if o.operation == "Update"), key=lambda owner: owner.time)
    old = updaters[: max(0, len(updaters) - MAX_UPDATERS + 1)] if len(updaters) > MAX_UPDATERS else []
    if not old:
        return owners
    fields: Paths = frozenset().union(*(owner.fields for owner in old))
    ancient = _Owner(ANCIENT, "Update", old[-1].api_version, "", old[-1].time, fields)
    kept = {key: owner for key, owner in owners.items() if owner not in old}
    return {**kept, ancient.key: ancient}


def _with_owners(obj: dict[str, Any], owners: _Owners) -> dict[str, Any]:
    """The object with these as its managedFields: appliers first, then by time and name."""
    order = sorted(owners.values(), key=lambda o: (o.operation, o.time, o.manager, o.api_version, o.subresource))
    entries = [_entry(owner) for owner in order if owner.fields]
    meta = {key: value for key, value in _meta(obj).items() if key != "managedFields"}
    return {**obj, "metadata": {**meta, **({"managedFields": entries} if entries else {})}}


def _entry(owner: _Owner) -> dict[str, Any]:
    words = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": owner.api_version,
        "time": owner.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": to_fields(owner.fields),
        "subresource": owner.subresource,
    }
    return {name: value for name, value in words.items() if value}
