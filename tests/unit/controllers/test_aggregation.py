"""ClusterRoles that are put together of others: their rules are those of their parts."""

import asyncio
import itertools

from msgspec.structs import replace

from korch.api.requestinfo import RequestInfo
from korch.api.security.authorize import Authorizer
from korch.api.security.rbac import GROUP, OWN, Policy
from korch.api.security.users import User
from korch.controllers.aggregation import KINDS, Aggregation, plan_aggregation
from korch.master.background import background
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.codec import with_meta
from korch.resources.meta import LabelSelector, ObjectMeta
from korch.resources.rbac import (
    OWN_ROLES,
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    RoleRef,
    Subject,
)
from tests.unit.nodes.virtual_loop import LoopClock, run_virtually
from tests.unit.objects.memory_store import MemoryStore

TO_ALL = {"into": "all"}


def part(name: str, *resources: str, **labels: str) -> ClusterRole:
    rules = (PolicyRule(verbs=("get",), api_groups=("",), resources=resources),)
    return ClusterRole(metadata=ObjectMeta(name=name, labels=labels), rules=rules)


def whole(name: str = "all") -> ClusterRole:
    rule = AggregationRule(cluster_role_selectors=(LabelSelector(match_labels=TO_ALL),))
    return ClusterRole(metadata=ObjectMeta(name=name, labels=TO_ALL), aggregation_rule=rule)


ROLES = [part("b", "pods", into="all"), part("a", "nodes", into="all"), part("c", "secrets"), whole("d")]


def test_rules_are_those_of_the_parts_in_any_order_and_a_second_plan_gives_nothing() -> None:
    for roles in itertools.permutations(ROLES):
        made = plan_aggregation(whole(), roles)
        assert made is not None
        assert [rule.resources for rule in made.rules] == [("nodes",), ("pods",)]
        assert plan_aggregation(made, roles) is None
    assert plan_aggregation(ROLES[2], ROLES) is None
    assert plan_aggregation(with_meta(whole(), deletion_timestamp="2026-01-01T00:00:00Z"), ROLES) is None


def test_what_it_says_is_what_it_grants() -> None:
    """Also where roles of korch's own names, which mean something else, are stored with such labels."""
    assert set(OWN) == OWN_ROLES
    roles = [*ROLES, part("view", "services", into="all"), whole()]
    made = plan_aggregation(whole(), roles)
    assert made is not None
    binding = ClusterRoleBinding(
        metadata=ObjectMeta(name="x"),
        role_ref=RoleRef(kind="ClusterRole", name="all", api_group=GROUP),
        subjects=(Subject(kind="User", name="jane"),),
    )
    told = replace(made, aggregation_rule=None)
    both = [Authorizer(Policy(cluster_roles=[*others], bindings=[binding])) for others in (roles, [told])]
    for word in ("pods", "nodes", "secrets", "services"):
        real, said = (one.allowed(User("jane"), RequestInfo("get", "", "", "v1", word))[0] for one in both)
        assert real is said is (word in {"pods", "nodes"})


def test_it_follows_its_parts() -> None:
    async def main() -> None:
        store = MemoryStore()
        objects = Objects(store, clock=LoopClock())  # type: ignore[arg-type]
        for role in (*ROLES, whole()):
            await objects.create(role)
        view = View(objects, KINDS)

        async def said() -> list[tuple[str, ...]]:
            await asyncio.sleep(3)
            return [rule.resources for rule in (await objects.get(ClusterRole, "all", "")).rules]

        async with background() as group:
            await view.start(group)
            group.create_task(Aggregation(view).run())
            assert await said() == [("nodes",), ("pods",)]
            await objects.modify(ClusterRole, "c", "", lambda found: with_meta(found, labels=TO_ALL))
            await objects.delete(ClusterRole, "a", "")
            assert await said() == [("pods",), ("secrets",)]
            await objects.modify(ClusterRole, "all", "", lambda found: replace(found, rules=()))
            assert await said() == [("pods",), ("secrets",)]
            writes = store.writes
            await objects.delete(ClusterRole, "all", "")
            await asyncio.sleep(3)
            assert store.writes == writes + 1

    run_virtually(main)
