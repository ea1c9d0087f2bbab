"""The four kinds of patches: which one a content type means, and the first three applied (the fourth: `ownership`)."""

from typing import Any

from korch.api.wire.jsonpatch import json_patched
from korch.api.wire.shapes import is_built_in, shape_of
from korch.api.wire.strategic import strategic_merged
from korch.api.wire.tree import copied
from korch.errors import MalformedError, UnsupportedMediaTypeError

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def media_type(content_type: str) -> str:
    """The content type in small letters, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def apply_patch(content_type: str, patch: Any, live: dict[str, Any], group_kind: tuple[str, str]) -> dict[str, Any]:
    """`live` after the patch; neither is changed. `group_kind` as `("apps", "Deployment")` knows lists with keys.

    `InvalidError` when the patch cannot be applied, `MalformedError` (400) when it is no patch.
    """
    group, kind = group_kind
    match media_type(content_type):
        case "application/json-patch+json":
            result = json_patched(patch, live)
        case "application/merge-patch+json":
            result = merge_patched(_map(patch), live)
        case "application/strategic-merge-patch+json" if is_built_in(group):
            result = strategic_merged(_map(patch), live, shape_of(group, kind))
        case other:
            accepted = [JSON_PATCH, MERGE_PATCH, *([STRATEGIC_PATCH] if is_built_in(group) else []), APPLY_PATCH]
            raise UnsupportedMediaTypeError(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(accepted),
                hint=f'"{other}" is not read for {kind}.',
            )
    if not isinstance(result, dict):
        raise MalformedError("the patch leaves no object")
    return result


def merge_patched(patch: Any, live: Any) -> Any:
    """JSON Merge Patch (RFC 7386): maps merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patched(value, result.get(key))
    return result


def _map(patch: Any) -> dict[str, Any]:
    if not isinstance(patch, dict):
        raise MalformedError("the patch must be a mapping")
    return patch
