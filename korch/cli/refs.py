"""How objects are named on the command line: `pods`, `po,deploy`, `deploy/web`, `pod web-1 web-2`, `all`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from korch.errors import InvalidError, NotFoundError
from korch.resources.kinds import DAEMONSET, DEPLOYMENT, POD, REPLICASET, Kind, kind_named

if TYPE_CHECKING:
    from korch.client.base import Client
    from korch.resources.meta import Object
    from korch.resources.pod import Pod
    from korch.resources.workload import DaemonSet, Deployment

ALL = (POD, DEPLOYMENT, REPLICASET, DAEMONSET)  # what `all` means


@dataclass(frozen=True, slots=True)
class Ref:
    """One kind, and the names asked for (none: all of the kind)."""

    kind: Kind
    names: tuple[str, ...] = ()


def parse_refs(words: Sequence[str]) -> tuple[Ref, ...]:
    """What is asked for, in the order of the words; `InvalidError` for a form that is neither of the two."""
    if any("/" in word for word in words):
        return tuple(_slashed(word) for word in words)
    names = tuple(words[1:])
    kinds: list[Kind] = []
    for word in filter(None, words[0].split(",")):
        kinds += ALL if word == "all" else (kind_named(word),)
    if not kinds:
        raise InvalidError("no kind is named", hint="Such as: korch get pods")
    if names and words[0] == "all":
        raise InvalidError('"all" takes no names', hint="Name a kind: korch get pods NAME")
    return tuple(Ref(kind, names) for kind in dict.fromkeys(kinds))


def _slashed(word: str) -> Ref:
    kind, slash, name = word.partition("/")
    if not (kind and slash and name) or "/" in name:
        raise InvalidError(f'"{word}" is not KIND/NAME', hint="Either KIND NAME... or KIND/NAME KIND/NAME...")
    return Ref(kind_named(kind), (name,))


async def find_workload_or_pod(client: Client, word: str, namespace: str) -> Deployment | DaemonSet | Pod:
    """What a bare or slashed name means; a bare one is looked for as deployment, then as daemon set, then as pod."""
    from korch.resources.pod import Pod
    from korch.resources.workload import DaemonSet, Deployment

    if "/" in word:
        ref = _slashed(word)
        for type_ in (Deployment, DaemonSet, Pod):
            if ref.kind.type is type_:
                return await client.get(type_, ref.names[0], namespace)
        raise InvalidError(f"{word} has no pods of its own to look at", hint="Name a pod or a deployment.")
    for type_ in (Deployment, DaemonSet):
        try:
            return await client.get(type_, word, namespace)
        except NotFoundError:
            continue
    try:
        return await client.get(Pod, word, namespace)
    except NotFoundError as error:
        where = "" if namespace == "default" else f' in namespace "{namespace}"'
        raise NotFoundError(f'there is no deployment and no pod "{word}"{where}', hint=error.hint) from None


async def pods_of(client: Client, target: Deployment | DaemonSet | Pod) -> tuple[Pod, ...]:
    """The pod itself, or the pods of a daemon set or of a deployment's replica sets."""
    from korch.resources.pod import Pod
    from korch.resources.workload import Deployment, ReplicaSet

    if isinstance(target, Pod):
        return (target,)
    namespace = target.metadata.namespace
    if not isinstance(target, Deployment):
        return tuple(pod for pod in (await client.list(Pod, namespace)).items if _owned_by(pod, {target.metadata.uid}))
    sets = await client.list(ReplicaSet, namespace)
    owners = {rs.metadata.uid for rs in sets.items if _owned_by(rs, {target.metadata.uid})}
    pods = await client.list(Pod, namespace)
    return tuple(pod for pod in pods.items if _owned_by(pod, owners))


def _owned_by(obj: Object, uids: set[str]) -> bool:
    return any(reference.controller and reference.uid in uids for reference in obj.metadata.owner_references)
