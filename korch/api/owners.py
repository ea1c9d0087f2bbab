"""Who owns which field of an object, noted at a write: for requests, and for whoever else writes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from korch.objects.prepare import Track
from korch.resources.codec import to_dict
from korch.resources.meta import Object
from korch.resources.times import rfc3339

if TYPE_CHECKING:
    from korch.api.wire.shapes import Shape

COMMANDS, CONTROLLERS = "korch", "korch-controller"


def owner(manager: str, now: Callable[[], float], *, subresource: str = "", shape: "Shape | None" = None) -> Track:
    """What makes `manager` the owner of the fields that a write changes."""

    def tracked(before: Object | None, after: Object) -> tuple[dict[str, Any], ...]:
        from korch.api.wire import ownership  # a command that changes nothing never needs it

        found = ownership.track_update(
            None if before is None else to_dict(before),
            to_dict(after),
            manager=manager,
            operation="Update",
            subresource=subresource,
            now=rfc3339(now()),
            shape=shape,
        )
        return tuple(found["metadata"].get("managedFields", ()))

    return tracked
