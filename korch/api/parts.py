"""Subresources with a shape of their own: scale, eviction, binding."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from korch.api.answers import Refusal, bad_request, invalid, json_answer, not_found, success
from korch.api.deleting import options_of
from korch.api.scaling import Scaling, scale_of
from korch.api.target import Body, Options, Target
from korch.api.wire import patches, strict
from korch.api.writing import Writer, check_versions
from korch.controllers.disruption import budgets_now, evict, stops_first, world_of
from korch.errors import ConflictError
from korch.objects.objects import Objects
from korch.objects.prepare import Track
from korch.objects.values import Deletion
from korch.resources.codec import with_meta
from korch.resources.kinds import POD, Kind
from korch.resources.meta import Object
from korch.resources.pod import Pod
from korch.resources.podstate import is_counted
from korch.resources.problems import Problem

_MOST_REPLICAS = 2**31 - 1


class Parts:
    """Reads and writes them for one API."""

    def __init__(self, objects: Objects, writer: Writer) -> None:
        self._objects, self._writer = objects, writer

    async def scale(
        self, target: Target, scaling: Scaling, body: Body | None, options: Options, track: Track
    ) -> dict[str, Any]:
        """The Scale of an object; with a body after it was replaced or patched with that."""
        kind, name = target.kind, target.name
        if body is None:
            found = await self._objects.find(kind.type, name, target.namespace)
            if found is None:
                raise not_found(kind, name)
            return scale_of(scaling, found)

        if patches.media_type(body.content_type) == patches.APPLY_PATCH:
            wish = _scale_in(strict.parse_patch(body.data, body.content_type))
            meta = _meta_of(wish)
            if meta.get("name") not in (None, name):
                raise bad_request(
                    f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
                )
            part = {"metadata": {**meta, "name": name}, **scaling.wish(_replicas(kind, name, wish))}
            return scale_of(scaling, await self._writer.apply_part(target, part, options))

        def change(stored: Object) -> Object:
            wanted = self._wanted(scale_of(scaling, stored), body)
            meta = _meta_of(wanted)
            seen = with_meta(stored, resource_version=str(meta.get("resourceVersion") or ""), uid=meta.get("uid") or "")
            check_versions(kind, seen, stored)
            return scaling.written(stored, _replicas(kind, name, wanted))

        made = await self._objects.modify(
            kind.type, name, target.namespace, change, track=track, dry_run=options.dry_run
        )
        return scale_of(scaling, made)

    def _wanted(self, live: dict[str, Any], body: Body) -> dict[str, Any]:
        media = patches.media_type(body.content_type)
        if not media.endswith("-patch+json"):
            return _scale_in(strict.parse_body(body.data, body.content_type))
        patch = strict.parse_patch(body.data, body.content_type)
        return patches.apply_patch(body.content_type, patch, live, ("autoscaling", "Scale"))

    async def evict(self, namespace: str, name: str, query: Mapping[str, str], body: Body) -> Response:
        """A pod leaves its node, within the budgets of those who need it: 429 while they do not allow it."""
        wish = strict.parse_body(body.data, body.content_type) if body.data.strip() else {}
        options = options_of(query, _inner(wish.get("deleteOptions")))
        pod = await self._objects.find(Pod, name, namespace)
        if pod is None:
            raise not_found(POD, name)
        if options.uid and options.uid != pod.metadata.uid:
            raise ConflictError("another pod has that name now")
        if not (is_counted(pod) and pod.spec.node_name):
            wanted = Deletion(dry_run=options.dry_run)
            await self._objects.delete(Pod, name, namespace, uid=pod.metadata.uid, grace_s=options.grace_s, wish=wanted)
            return json_answer(success(code=201), 201)
        world = await world_of(self._objects, namespace)
        first = stops_first(pod, world)
        if first:
            for budget in budgets_now(world):
                if text := budget.objection(pod):
                    raise _held(text)
        if not options.dry_run:
            await evict(self._objects, pod, "evicted over the API", stop_first=first)
        return json_answer(success(code=201), 201)

    async def bind(self, namespace: str, name: str, body: Body, *, dry_run: bool) -> Response:
        """A pod gets its node from a scheduler of somebody else's."""
        wish = strict.parse_body(body.data, body.content_type)
        target = wish.get("target")
        node = target.get("name") if isinstance(target, dict) else None
        if not isinstance(node, str) or not node:
            raise invalid(POD, name, (Problem("target.name", "Required value"),))
        pod = await self._objects.find(Pod, name, namespace)
        if pod is None:
            raise not_found(POD, name)
        await self._objects.bind(pod, node, "{}", dry_run=dry_run)
        return json_answer(success(code=201), 201)


def _scale_in(found: dict[str, Any]) -> dict[str, Any]:
    if found.get("kind", "Scale") != "Scale":
        raise bad_request(f"the body is a {found['kind']}, not a Scale")
    return found


def _meta_of(scale: dict[str, Any]) -> dict[str, Any]:
    meta = scale.get("metadata") or {}
    if not isinstance(meta, dict):
        raise bad_request("metadata must be a mapping")
    return meta


def _inner(options: Any) -> Body:
    return Body(msgspec.json.encode(options) if isinstance(options, dict) else b"", "application/json")


def _held(why: str) -> Refusal:
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    details = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    return Refusal(429, text, details)  # without Retry-After: clients would try for a minute, and say nothing


def _replicas(kind: Kind, name: str, scale: dict[str, Any]) -> int:
    spec = scale.get("spec") or {}
    count = spec.get("replicas", 0) if isinstance(spec, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        raise bad_request("Scale: spec.replicas must be a whole number")
    if not 0 <= count <= _MOST_REPLICAS:
        raise invalid(kind, name, (Problem("spec.replicas", f"Invalid value: {count}: must not be negative"),))
    return count
