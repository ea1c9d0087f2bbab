"""Requests made from the served OpenAPI documents: none meets a fault of the server."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from korch.api import registry
from tests.contract.apiserver import Served, served
from tests.fuzzing import TIMES

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own

DOCUMENTS = ["api/v1", "apis/apps/v1", "apis/batch/v1", "apis/authorization.k8s.io/v1"]
if TIMES > 1:
    DOCUMENTS = [
        f"apis/{group}/{version}" if group else f"api/{version}"
        for group, versions in registry.groups().items()
        for version in versions
        if group != "metrics.k8s.io"  # nobody measures here
    ]
_ENDLESS = ("watch", "sendInitialEvents", "resourceVersion")  # what waits is tested elsewhere


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


def finite(document: dict[str, Any]) -> dict[str, Any]:
    for path in document["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict):
                operation["parameters"] = [one for one in operation["parameters"] if one["name"] not in _ENDLESS]
    return document


@pytest.mark.parametrize("place", DOCUMENTS)
def test_no_request_meets_a_fault(api: Served, place: str) -> None:
    import httpx

    document = finite(httpx.get(f"{api.url}/openapi/v3/{place}").json())
    schema = schemathesis.openapi.from_dict(document)
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=3 * TIMES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def once(case: Any) -> None:
            nonlocal asked
            asked += 1
            answer = case.call(base_url=api.url, timeout=20)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)

        from hypothesis import given

        given(case=operation.as_strategy())(once)()
    assert asked > 4 * TIMES
    assert httpx.get(f"{api.url}/readyz").text == "ok"
