from pathlib import Path

import pytest

from korch.resources import autoscaling, batch, config, crd, history, meta, misc, node, pod, service, workload
from korch.resources.fielddocs import field_docs
from korch.resources.fields import RULES, Rule, known_fields, refusals, struct_fields
from korch.resources.meta import Struct
from korch.resources.pod import Container, Lifecycle, LifecycleHandler, PodSpec, SecurityContext

TYPES = {
    name: type_
    for module in (meta, misc, node, pod, workload, autoscaling, batch, config, crd, history, service)
    for name, type_ in vars(module).items()
    if isinstance(type_, type) and issubclass(type_, Struct)
}
CONTEXTS = {**TYPES, "PodSecurityContext": SecurityContext}


def test_the_docs_are_current():
    file = Path(__file__).parents[3] / "docs" / "FIELDS.md"
    assert file.read_text() == field_docs(), "write docs/FIELDS.md anew: see korch/resources/fielddocs.py"


@pytest.mark.parametrize("context", sorted(RULES))
def test_rules_stand_for_types_that_exist(context):
    assert context in CONTEXTS


@pytest.mark.parametrize("context", sorted(RULES))
def test_every_rule_says_why(context):
    assert all(len(rule.why) > 8 for rule in RULES[context].values())


def test_a_rule_lets_pass_what_says_nothing():
    rule = Rule("refused", "why", ("Default",))
    assert [value for value in (True, "x", 1, ["a"]) if rule.applies(value)] == [True, "x", 1, ["a"]]
    assert not any(rule.applies(value) for value in (False, "", 0, [], {}, None, "Default"))


def test_known_fields_are_those_of_the_type_and_of_the_rules():
    known = known_fields(PodSpec, "PodSpec")
    assert {"containers", "hostNetwork", "initContainers"} <= known
    assert "nodeName" in struct_fields(PodSpec)


def test_refusals_name_the_path_inside_a_typed_object():
    lifecycle = Lifecycle(pre_stop=LifecycleHandler())
    spec = PodSpec(containers=(Container(name="a"), Container(name="b", lifecycle=lifecycle)))
    assert [p.path for p in refusals(spec, "spec")] == []  # an empty handler does nothing
    spec = PodSpec(
        containers=(Container(name="a"),),
        security_context=SecurityContext(privileged=True),
    )
    assert [p.path for p in refusals(spec, "spec")] == ["spec.securityContext.privileged"]


def test_privileged_is_fine_in_a_container():
    spec = PodSpec(containers=(Container(name="a", security_context=SecurityContext(privileged=True)),))
    assert refusals(spec, "spec") == []
