"""PodDisruptionBudget as a manifest."""

import pytest

from korch.cli.columns import columns_of
from korch.resources.codec import from_dict
from korch.resources.defaults import with_defaults
from korch.resources.disruption import PodDisruptionBudget
from korch.resources.kinds import kind_for, kind_named
from korch.resources.manifests import load_manifests
from korch.resources.validation import problems_of

SELECTOR = {"matchLabels": {"app": "web"}}


def problems(**spec: object) -> list[str]:
    data = {"metadata": {"name": "web"}, "spec": {"selector": SELECTOR, **spec}}
    made = with_defaults(from_dict(kind_for("policy/v1", "PodDisruptionBudget"), data))
    return [str(problem) for problem in problems_of(made)]


@pytest.mark.parametrize(
    "spec",
    [
        {"minAvailable": 2},
        {"minAvailable": "100%"},
        {"maxUnavailable": 0},
        {"maxUnavailable": "0%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        {"minAvailable": 1, "selector": {}},
    ],
    ids=str,
)
def test_legal(spec: dict[str, object]) -> None:
    assert problems(**spec) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec: needs one of minAvailable and maxUnavailable"),
        ({"minAvailable": 1, "maxUnavailable": 1}, "spec: needs one of minAvailable and maxUnavailable"),
        ({"minAvailable": -1}, "spec.minAvailable: -1 is less than 0"),
        ({"minAvailable": "101%"}, "spec.minAvailable: 101% is more than 100%"),
        ({"maxUnavailable": "many"}, 'spec.maxUnavailable: "many" is neither a number nor a percentage'),
        ({"minAvailable": 1, "selector": None}, "spec.selector: is needed"),
        (
            {"minAvailable": 1, "selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
            "spec.selector",
        ),
        ({"minAvailable": 1, "unhealthyPodEvictionPolicy": "Never"}, '"Never" is not IfHealthyBudget or AlwaysAllow'),
    ],
    ids=str,
)
def test_illegal(spec: dict[str, object], message: str) -> None:
    found = problems(**spec)
    assert len(found) == 1
    assert message in found[0]


def test_what_kubectl_calls_it() -> None:
    assert kind_named("pdb").type is PodDisruptionBudget
    assert kind_named("poddisruptionbudgets.policy").key("a", "b") == "/policy/poddisruptionbudgets/a/b"
    headers = columns_of(PodDisruptionBudget).headers
    assert headers[:5] == ("NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE")


def test_a_misspelled_field_is_named_with_its_line() -> None:
    text = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec:\n  minAvailabel: 1\n"
    with pytest.raises(Exception, match="minAvailable"):
        load_manifests(text, "pdb.yml")
