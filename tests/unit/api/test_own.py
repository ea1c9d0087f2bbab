"""The paths of korch's own client: what is asked wrongly is told as such, and changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from korch.api.services import Services
from korch.client.base import PlannedStep
from tests.unit.api.serving import World, deployment, run

OWN = "/apis/korch.dev/v1"


class Client:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def preview(self, objects: Any) -> tuple[PlannedStep, ...]:
        self.calls.append([obj.metadata.name for obj in objects])
        return ()

    async def prune(self, *, orphans: frozenset[str]) -> None:
        self.calls.append(orphans)

    async def load_history(self, count: int) -> dict[str, Any]:
        self.calls.append(count)
        return {}


def asked(tmp_path: Path, client: Client, method: str, path: str, body: Any = None) -> tuple[int, str]:
    found: list[tuple[int, str]] = []

    async def the_client() -> Any:
        return client

    async def check(world: World) -> None:
        content = body if isinstance(body, bytes) else None
        more = {"content": content} if content is not None else {"json": body} if body is not None else {}
        answer = await world.http.request(method, OWN + path, **more)
        found.append((answer.status_code, answer.text))

    run(tmp_path, check, Services(client=the_client))
    return found[0]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "says"),
    [
        ("GET", "/looks/nothing", None, 404, "could not find"),
        ("GET", "/looks", None, 404, "could not find"),
        ("GET", "/looks/info/more", None, 404, "could not find"),
        ("GET", "/namespaces/default/looks/history?count=1", None, 404, "could not find"),
        ("POST", "/looks/history", None, 405, "does not allow"),
        ("GET", "/looks/history", None, 400, "count must be"),
        ("GET", "/looks/history?count=-1", None, 400, "count must be"),
        ("GET", "/looks/history?count=9999999999999", None, 400, "count must be"),
        ("GET", "/acts/prune", None, 405, "does not allow"),
        ("DELETE", "/acts/prune", None, 405, "does not allow"),
        ("POST", "/namespaces/default/acts/prune", {}, 404, "could not find"),
        ("POST", "/acts/prune?dryRun=All", {}, 400, "cannot be tried"),
        ("POST", "/acts/prune", b"{", 400, "cannot be read"),
        ("POST", "/acts/prune", b"\xff", 400, "cannot be read"),
        ("POST", "/acts/prune", [], 400, "cannot be read"),
        ("POST", "/acts/prune", {"orphans": 7}, 400, "cannot be read"),
        ("POST", "/acts/resolve", {}, 400, "image"),
        ("POST", "/acts/resolve", {"image": "x", "auth": "%%"}, 400, "not base64"),
        ("POST", "/acts/preview", {"objects": [{}]}, 400, "no apiVersion"),
        ("POST", "/acts/preview", {"objects": [{"apiVersion": "v9", "kind": "Pod"}]}, 422, "apiVersion"),
        ("POST", "/acts/preview", {"objects": [{"apiVersion": "v1", "kind": "Pod", "spec": 3}]}, 422, "Pod"),
        ("POST", "/namespaces/shop/acts/preview", {"objects": [deployment()]}, 400, "does not match"),
    ],
)
def test_a_wrong_call_is_refused(tmp_path: Path, method: str, path: str, body: Any, code: int, says: str) -> None:
    client = Client()
    assert asked(tmp_path, client, method, path, body)[0] == code
    assert says in asked(tmp_path, client, method, path, body)[1]
    assert client.calls == []


def test_a_right_call_is_made(tmp_path: Path) -> None:
    client = Client()
    assert asked(tmp_path, client, "POST", "/namespaces/default/acts/preview", {"objects": [deployment()]})[0] == 200
    assert asked(tmp_path, client, "POST", "/acts/prune", {"orphans": ["a"]}) == (200, "null")
    assert asked(tmp_path, client, "GET", "/looks/history?count=3") == (200, "{}")
    assert client.calls == [["web"], frozenset({"a"}), 3]


def test_without_a_master_behind_it_there_is_nothing(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        assert (await world.http.get(f"{OWN}/looks/info")).status_code == 404

    run(tmp_path, check)
