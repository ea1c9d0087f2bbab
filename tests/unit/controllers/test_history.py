"""The history of DaemonSets: each template once, the one of now the newest."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.daemonset import HASH_LABEL, daemon_for
from korch.controllers.history import HistoryPlan, plan_history
from korch.resources.codec import from_dict, to_dict, with_meta
from korch.resources.defaults import with_defaults
from korch.resources.history import ControllerRevision
from korch.resources.kinds import DAEMONSET
from korch.resources.templates import template_hash
from korch.resources.validation import problems_of
from tests.unit.controllers.test_daemonset import daemonset


def kept(plan: HistoryPlan, before: dict[str, ControllerRevision]) -> dict[str, ControllerRevision]:
    after = before | {found.metadata.name: found for found in (*plan.create, *plan.update)}
    return {name: found for name, found in after.items() if found not in plan.delete}


def test_a_revision_brings_its_template_back():
    old, new = daemonset("log:1"), daemonset("log:2")
    (made,) = plan_history(old, (), ()).create
    assert problems_of(with_defaults(made)) == []
    patch = made.data["spec"]["template"]
    assert patch.pop("$patch") == "replace"
    data = to_dict(new)
    back = from_dict(DAEMONSET, {**data, "spec": {**data["spec"], "template": patch}})
    assert template_hash(with_defaults(back).spec.template) == template_hash(old.spec.template)


@given(images=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12), limit=st.integers(0, 3))
def test_the_template_of_now_is_the_newest_of_few(images, limit):
    history: dict[str, ControllerRevision] = {}
    for image in images:
        found = daemonset(f"{image}:1")
        found = replace(found, spec=replace(found.spec, revision_history_limit=limit))
        history = kept(plan_history(found, tuple(history.values()), ()), history)
        newest = max(history.values(), key=lambda one: one.revision)
        assert newest.metadata.labels[HASH_LABEL] == template_hash(found.spec.template)
        assert len({one.revision for one in history.values()}) == len(history)
        assert len(history) <= limit + 1
        assert plan_history(found, tuple(history.values()), ()) == HistoryPlan()


def test_what_pods_still_run_is_not_forgotten():
    old, new = daemonset("log:1"), daemonset("log:2")
    new = replace(new, spec=replace(new.spec, revision_history_limit=0))
    history = kept(plan_history(old, (), ()), {})
    pod = daemon_for(old, "n1")
    assert plan_history(new, tuple(history.values()), (pod,)).delete == ()
    assert plan_history(new, tuple(history.values()), ()).delete == tuple(history.values())


def test_the_cause_of_a_change_is_kept_with_it():
    found = with_meta(daemonset(), annotations={"kubernetes.io/change-cause": "why"})
    (made,) = plan_history(found, (), ()).create
    assert made.metadata.annotations == {"kubernetes.io/change-cause": "why"}
    told = with_meta(found, annotations={"kubernetes.io/change-cause": "other"})
    assert plan_history(told, (made,), ()).update[0].metadata.annotations == {"kubernetes.io/change-cause": "other"}
