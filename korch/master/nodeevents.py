"""Events about nodes."""

from korch.objects.view import View
from korch.resources.node import Node


async def tell_of_node(view: View, name: str, *, reason: str, text: str, component: str, warning: bool = True) -> None:
    """Note what happened to a node; nothing while it has no object."""
    node = view.find(Node, name, "")
    if node is not None:
        await view.objects.record_event(
            node, type="Warning" if warning else "Normal", reason=reason, message=text, component=component
        )
