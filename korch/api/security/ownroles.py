"""korch's own roles as ClusterRoles that people can read: pure, told by asking who decides about requests.

What they say is what is let through, for every kind that there is. They stand in no store, and nobody writes them.
"""

import uuid
from collections import defaultdict

from korch.api import registry
from korch.api.security.authorize import SELF_REVIEWS, Authorizer
from korch.api.security.rbac import GROUP, OWN, Policy
from korch.api.security.users import Grant, User
from korch.resources.meta import ObjectMeta
from korch.resources.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject

_ASKER = User("x")
_SAYS = {
    "cluster-admin": "everything, everywhere; bound in one namespace the same as admin",
    "admin": "everything in a namespace but its quota and limits, and where its pods are",
    "edit": "to change what runs, to read and write Secrets, to get into containers; no roles",
    "view": "to look, also at logs; no Secrets, no roles, not into containers",
}


def own_roles() -> tuple[ClusterRole, ...]:
    """All of them, by name, with what they grant for all kinds of now; custom ones too."""
    return tuple(_role(name) for name in sorted(OWN))


def _role(name: str) -> ClusterRole:
    meta = ObjectMeta(
        name=name,
        uid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"clusterroles/{name}")),
        labels={"kubernetes.io/bootstrapping": "rbac-defaults"},
        annotations={"kubernetes.io/description": f"{_SAYS[name]}. It can be bound, and not be written."},
        resource_version="1",
    )
    return ClusterRole(metadata=meta, rules=_rules(name))


def _rules(name: str) -> tuple[PolicyRule, ...]:
    """What a binding of the role in the whole cluster lets through; in a namespace it is the same, there."""
    ref = RoleRef(kind="ClusterRole", name=name, api_group=GROUP)
    subject = Subject(kind="User", name=_ASKER.name, api_group=GROUP)
    policy = Policy(bindings=[ClusterRoleBinding(metadata=ObjectMeta(name=name), role_ref=ref, subjects=(subject,))])
    given = policy.given(ref, "")
    if given is not None and given.grant == Grant("admin", ""):
        every = ("*",)
        objects = PolicyRule(verbs=every, api_groups=every, resources=every)
        return (objects, PolicyRule(verbs=every, non_resource_urls=every))
    authorizer = Authorizer(policy)
    found: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for served in registry.everything():
        verbs = authorizer.own_verbs(_ASKER, served, "x")
        if verbs and (served.group, served.plural) not in SELF_REVIEWS:  # everybody may ask about themselves
            found[served.group, verbs].append(served.word)
    return tuple(
        PolicyRule(verbs=verbs, api_groups=(group,), resources=tuple(sorted(words)))
        for (group, verbs), words in sorted(found.items())
    )
