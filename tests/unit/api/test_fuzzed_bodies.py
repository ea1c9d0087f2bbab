"""Bodies that no client should send: each gets an answer below 500, and one that is refused changes nothing."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from korch.resources.kinds import KINDS
from tests.unit.api.serving import World, run

BODIES = json.loads((Path(__file__).parent / "wire" / "kubectl_bodies.json").read_text())
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63 - 1, 1.5, 1e300, "", " ", "a", "A_b", "\u0000", "é" * 300, "x" * 70_000),
    *(
        [],
        [None],
        [[]],
        [1, "a"],
        {},
        {"": 1},
        {"a": None},
        {"$patch": "delete"},
        {"name": []},
        "99999999999999999999Mi",
    ),
)
WORDS = (
    *("metadata", "spec", "status", "name", "labels", "template", "containers", "$patch", "$retainKeys", "replicas"),
    *("$setElementOrder/containers", "finalizers", "ownerReferences", "managedFields", "data", "selector", "extra"),
)
REQUESTS = 100

Json = dict[str, Any]


def mutated(value: Any, dice: random.Random, depth: int = 0) -> Any:
    """The value with something odd in it, somewhere."""
    if depth > 6 or dice.random() < 0.12 or not isinstance(value, dict | list) or not value:
        return dice.choice((dice.choice(ODD), {dice.choice(WORDS): value}, [value, value], value))
    if isinstance(value, list):
        at = dice.randrange(len(value))
        return [mutated(item, dice, depth + 1) if index == at else item for index, item in enumerate(value)]
    key = dice.choice(sorted(value))
    match dice.randrange(4):
        case 0:
            return {**value, dice.choice(WORDS): dice.choice(ODD)}
        case 1:
            return {name: item for name, item in value.items() if name != key}
    return {**value, key: mutated(value[key], dice, depth + 1)}


def some_object(dice: random.Random) -> Json:
    """A legal object of a kind that is stored, named `x`."""
    stored = {(kind.api_version, kind.name) for kind in KINDS}
    obj: Json = dice.choice([one["object"] for one in BODIES if kind_of(one["object"]) in stored])
    return {**obj, "metadata": {**obj["metadata"], "name": "x"}}


def kind_of(obj: Json) -> tuple[str, str]:
    return obj["apiVersion"], obj["kind"]


def path_of(obj: Json) -> str:
    kind = next(kind for kind in KINDS if (kind.api_version, kind.name) == kind_of(obj))
    root = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
    return f"{root}/namespaces/default/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"


def operations(dice: random.Random) -> Any:
    paths = ("/metadata/labels", "/metadata/name", "/spec/x", "/spec", "", "/metadata/finalizers/-", "/a~2", "x", 7)
    names = ("add", "remove", "replace", "move", "copy", "test", "jump")
    return [
        {"op": dice.choice(names), "path": dice.choice(paths), "from": dice.choice(paths), "value": dice.choice(ODD)}
        for _ in range(dice.randrange(4))
    ]


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def damaged(raw: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, or the end lost."""
    data = bytearray(raw)
    for _ in range(dice.randrange(1, 5)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data[: dice.randrange(len(data))] if dice.random() < 0.3 else data)


def posted(dice: random.Random, obj: Json) -> tuple[str, str, str, bytes]:
    body = as_json(mutated(obj, dice))
    return "POST", path_of(obj), "application/json", damaged(body, dice) if dice.random() < 0.2 else body


def put(dice: random.Random, obj: Json) -> tuple[str, str, str, bytes]:
    text = yaml.safe_dump(mutated(obj, dice), allow_unicode=True).encode()
    return "PUT", f"{path_of(obj)}/x", "application/yaml", damaged(text, dice) if dice.random() < 0.3 else text


def binary(dice: random.Random, obj: Json) -> tuple[str, str, str, bytes]:
    recorded = next(one for one in BODIES if kind_of(one["object"]) == kind_of(obj))
    body = damaged(bytes.fromhex(recorded["body"]), dice)
    return "POST", path_of(obj), "application/vnd.kubernetes.protobuf", body


def patched(dice: random.Random, obj: Json) -> tuple[str, str, str, bytes]:
    kind = dice.choice(("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"))
    body = operations(dice) if kind == "json-patch+json" and dice.random() < 0.9 else mutated(obj, dice)
    part = dice.choice(("", "", "/status", "/scale"))
    query = dice.choice(("fieldManager=f&force=true", "fieldManager=f", "fieldValidation=Strict&fieldManager=f"))
    return "PATCH", f"{path_of(obj)}/x{part}?{query}", f"application/{kind}", as_json(body)


def selected(dice: random.Random, obj: Json) -> tuple[str, str, str, bytes]:
    words = (
        "a=b",
        "a in (",
        "!",
        "a=b,,c",
        "metadata.name=x",
        "x!=",
        "é",
        "%",
        "(",
        "a notin ()",
        "=",
        "limit",
        "-1",
        "1e9",
    )
    names = ("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "timeoutSeconds")
    query = "&".join(f"{dice.choice(names)}={dice.choice(words)}" for _ in range(3))
    return dice.choice(("GET", "DELETE")), f"{path_of(obj)}?{query}", "", b""


@pytest.mark.parametrize("make", [posted, put, binary, patched, selected], ids=lambda make: make.__name__)
def test_odd_requests(tmp_path: Path, make: Callable[[random.Random, Json], tuple[str, str, str, bytes]]) -> None:
    async def check(world: World) -> None:
        for seed in range(REQUESTS):
            dice = random.Random(f"{make.__name__} {seed}")
            obj = some_object(dice)
            if make in (put, patched):
                await world.http.post(path_of(obj), json=obj)
            before = (await world.store.list("/")).revision
            method, path, content_type, body = make(dice, obj)
            headers = {"content-type": content_type} if content_type else {}
            answer = await world.http.request(method, path, content=body, headers=headers)
            asked = f"seed {seed}: {method} {path} {content_type} {body[:2000]!r}"
            assert answer.status_code < 500, f"{asked} -> {answer.text}"
            if answer.status_code >= 400:
                assert answer.json()["message"], asked
                assert (await world.store.list("/")).revision == before, asked
            await world.http.delete(f"{path_of(obj)}/x", params={"gracePeriodSeconds": 0})

    run(tmp_path, check)
