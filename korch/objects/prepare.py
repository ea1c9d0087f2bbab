"""Pure: what is stored when an object is created, changed, bound or marked for deletion."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError, InvalidError
from korch.objects.values import Deletion
from korch.resources.annotations import DECISION
from korch.resources.codec import typed, with_meta
from korch.resources.crd import CustomResourceDefinition
from korch.resources.defaults import DEFAULT_NAMESPACE, GRACE_S, with_defaults
from korch.resources.images import noted_images
from korch.resources.kinds import Kind, kind_of, kind_of_type
from korch.resources.meta import Condition, Object, ObjectMeta
from korch.resources.misc import Namespace
from korch.resources.pod import Pod, PodStatus
from korch.resources.problems import Problem, raise_problems
from korch.resources.times import parse_time, rfc3339
from korch.resources.validation import validate, validate_update

T = TypeVar("T", bound=Object)

# What the fields of an object are owned by, as metadata.managedFields holds it, given it before and after a write.
Track = Callable[[Object | None, Object], tuple[dict[str, Any], ...]]

# Kubernetes' finalizers: whoever collects what has lost its owner takes the first two off, and the third is taken off
# a namespace once it is empty, and the fourth off a definition once its objects are gone.
FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
CONTENTS, CLEANUP = "kubernetes", "customresourcecleanup.apiextensions.k8s.io"

_NOT_SPEC = frozenset({"api_version", "kind", "metadata", "status"})


def subject(obj: Object) -> str:
    """The object in messages: `pod "x" in namespace "default"`."""
    return named(type(obj), obj.metadata.name, obj.metadata.namespace)


def named(type_: type[Object], name: str, namespace: str, verb: str = "") -> str:
    """As `subject`, from parts, with words between: `pod "x" not found in namespace "default"`."""
    kind = kind_of_type(type_)
    return f'{kind.name.lower()} "{name}"{verb}' + (f' in namespace "{namespace}"' if kind.namespaced else "")


def exists_already(obj: Object) -> AlreadyExistsError:
    """The refusal to make it a second time."""
    return AlreadyExistsError(f"{subject(obj)} exists already", hint="Change it, or delete it first.")


def not_found_hint(kind: Kind, namespace: str, name: str, names: Sequence[str]) -> str:
    """What to say to somebody who named an object that is not there: the name that looks like it, and where to look."""
    close = difflib.get_close_matches(name, names, n=1)
    where = f" -n {namespace}" if kind.namespaced and namespace != DEFAULT_NAMESPACE else ""
    lists = f"`korch get {kind.plural}{where}` lists what there is."
    return f'Did you mean "{close[0]}"? {lists}' if close else lists


def for_create(obj: T, *, name: str, uid: str, now: float) -> T:
    """The object as first stored: defaults filled in, valid, with identity, without status."""
    if obj.metadata.resource_version:
        raise InvalidError(f"{subject(obj)} has a resourceVersion; a new object has none", hint="Remove the field.")
    meta = replace(
        obj.metadata,
        name=name,
        uid=uid,
        generation=1 if hasattr(obj, "spec") else 0,
        creation_timestamp=rfc3339(now),
        deletion_timestamp=None,
        deletion_grace_period_seconds=None,
        managed_fields=(),
    )
    blank: dict[str, Any] = {"status": type(obj)().status} if kind_of(obj).has_status else {}  # type: ignore[attr-defined]
    if isinstance(obj, Pod):
        blank = {"status": PodStatus(phase="Pending")}
    ready = with_defaults(typed(replace(obj, metadata=meta, **blank)))
    validate(ready)
    return ready


def for_update(obj: T, stored: T) -> T:
    """`stored` with the labels, annotations, owners, finalizers and spec of `obj`; the rest is not the caller's."""
    _check_finalizers(obj, stored)
    meta = replace(
        stored.metadata,
        labels=obj.metadata.labels,
        annotations=_annotations(obj, stored),
        owner_references=obj.metadata.owner_references,
        finalizers=obj.metadata.finalizers,
        managed_fields=obj.metadata.managed_fields or stored.metadata.managed_fields,
    )
    kept: dict[str, Any] = {"status": stored.status} if kind_of(obj).has_status else {}  # type: ignore[attr-defined]
    ready = with_defaults(typed(replace(obj, metadata=meta, **kept)))
    if ready == stored:
        return stored
    validate(ready)
    validate_update(ready, stored)
    if hasattr(ready, "spec") and spec_of(ready) != spec_of(stored):
        ready = with_meta(ready, generation=stored.metadata.generation + 1)
    return ready


def _annotations(obj: Object, stored: Object) -> dict[str, str]:
    if isinstance(obj, Pod) and isinstance(stored, Pod):
        return noted_images(obj, stored)
    return obj.metadata.annotations


def _check_finalizers(obj: Object, stored: Object) -> None:
    """What is being deleted is held by nothing new: those who would let it go may have gone through it already."""
    new = [name for name in obj.metadata.finalizers if name not in stored.metadata.finalizers]
    if new and stored.metadata.deletion_timestamp is not None:
        text = f"no new ones can be added while the object is being deleted: {', '.join(new)}"
        raise_problems(subject(stored), (Problem("metadata.finalizers", text),))


def for_status(obj: T, stored: T) -> T:
    """`stored` with the status of `obj`."""
    if not kind_of(obj).has_status:
        raise InvalidError(f"{subject(obj)}: this kind has no status of its own", hint="Use update.")
    meta = replace(stored.metadata, managed_fields=obj.metadata.managed_fields or stored.metadata.managed_fields)
    return replace(stored, metadata=meta, status=obj.status)  # type: ignore[attr-defined]


def tracked(new: T, stored: T | None, track: Track | None) -> T:
    """`new` with what `track` says of who owns which field; a write that changes nothing changes no owners."""
    if track is None or new == stored:
        return new
    return with_meta(new, managed_fields=track(stored, new))


def check_identity(obj: Object, stored: Object) -> None:
    """Refuse to write over another object of the same name."""
    if obj.metadata.uid and obj.metadata.uid != stored.metadata.uid:
        raise ConflictError(
            f"{subject(obj)} is another one now: uid {stored.metadata.uid}, not {obj.metadata.uid}",
            hint="Read it again.",
        )


def spec_of(obj: Object) -> tuple[Any, ...]:
    """Everything that a person wishes, as opposed to metadata and status."""
    return tuple(getattr(obj, field) for field in obj.__struct_fields__ if field not in _NOT_SPEC)


def bound(pod: Pod, node: str, decision: str, now: float) -> Pod:
    """The pod on its node, with the scheduler's reasons."""
    ready = Condition(type="PodScheduled", status="True", last_transition_time=rfc3339(now))
    others = tuple(c for c in pod.status.conditions if c.type != "PodScheduled")
    noted = with_meta(pod, annotations={**pod.metadata.annotations, DECISION: decision})
    spec, status = replace(pod.spec, node_name=node), replace(pod.status, conditions=(*others, ready))
    return replace(noted, spec=spec, status=status)


def held(obj: T, wish: Deletion) -> T:
    """The object with the finalizers that the wish needs, and a namespace that is on its way out."""
    wanted = () if wish.propagation == "Background" else (FINALIZERS[wish.propagation],)
    if isinstance(obj, Namespace) and wish.contents:
        wanted = (*wanted, CONTENTS)
        obj = replace(obj, status=replace(obj.status, phase="Terminating"))
    if isinstance(obj, CustomResourceDefinition) and wish.contents:
        wanted = (*wanted, CLEANUP)
    new = tuple(found for found in wanted if found not in obj.metadata.finalizers)
    return with_meta(obj, finalizers=(*obj.metadata.finalizers, *new)) if new else obj


def lingers(obj: Object) -> bool:
    """Whether deleting only marks it: a pod with containers somewhere, or an object that finalizers hold."""
    return bool(obj.metadata.finalizers) or (isinstance(obj, Pod) and bool(obj.spec.node_name))


def released(obj: Object) -> bool:
    """Whether a marked object may go now: no finalizers, and no containers that a keeper must stop first."""
    meta = obj.metadata
    if meta.deletion_timestamp is None or meta.finalizers:
        return False
    return not (isinstance(obj, Pod) and obj.spec.node_name) or meta.deletion_grace_period_seconds == 0


def marked(obj: T, grace_s: int | None, now: float) -> T:
    """The object marked for deletion; a second mark can only shorten the time it has."""
    if isinstance(obj, Pod):
        wish = obj.spec.termination_grace_period_seconds if grace_s is None else grace_s
        wanted_s = max(GRACE_S if wish is None else wish, 1)  # 0 means "its containers are gone": the keeper says so
    else:
        wanted_s = 0
    meta: ObjectMeta = obj.metadata
    if meta.deletion_timestamp is not None and parse_time(meta.deletion_timestamp) <= now + wanted_s:
        return obj
    return with_meta(obj, deletion_timestamp=rfc3339(now + wanted_s), deletion_grace_period_seconds=wanted_s)


def ended(pod: Pod, now: float) -> Pod:
    """A marked pod whose containers are gone, and that only finalizers still hold."""
    return with_meta(
        pod,
        deletion_timestamp=pod.metadata.deletion_timestamp or rfc3339(now),
        deletion_grace_period_seconds=0,
    )
