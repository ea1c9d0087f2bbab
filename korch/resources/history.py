"""ControllerRevision: what a workload's template once was. Shape is Kubernetes' (apps/v1)."""

from typing import Any

from korch.resources.meta import Object


class ControllerRevision(Object, frozen=True, kw_only=True):
    """apps/v1 ControllerRevision. `data` is a patch that brings the template back; `revision` grows."""

    revision: int
    data: Any = None
