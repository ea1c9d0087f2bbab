"""`korch get` has columns for every kind: its own, or those that the API shows to kubectl."""

import pytest

from korch.cli.columns import columns_of
from korch.resources.batch import Job, JobSpec
from korch.resources.defaults import with_defaults
from korch.resources.kinds import KINDS
from korch.resources.meta import ObjectMeta
from tests.unit.resources.test_defaults import NEEDED


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("wide", [False, True], ids=["usual", "wide"])
def test_each_header_has_its_cell(kind, wide):
    obj = with_defaults(kind.type(metadata=ObjectMeta(name="a"), **NEEDED.get(kind.name, {})))
    headers, (row,) = columns_of(kind.type).of([obj], 0.0, wide=wide)
    assert len(headers) == len(row)
    assert kind.name == "Event" or row[headers.index("NAME")] == "a"


def test_a_job_shows_its_completions():
    job = with_defaults(Job(metadata=ObjectMeta(name="pi"), spec=JobSpec(completions=3)))
    headers, (row,) = columns_of(Job).of([job], 0.0, wide=False)
    assert dict(zip(headers, row, strict=True))["COMPLETIONS"] == "0/3"
    assert "CONTAINERS" not in headers
    assert columns_of(Job).of([job], 0.0, wide=True)[0][-1] == "SELECTOR"
