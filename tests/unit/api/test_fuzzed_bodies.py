"""Bodies that no client should send: each gets an answer below 500, and one that is refused changes nothing."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from korch.resources.kinds import KINDS
from tests.fuzzing import TIMES
from tests.unit.api.serving import CONFIGMAPS, World, configmap, run

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
REQUESTS = 100 * TIMES

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

    run(tmp_path, check, timeout_s=60 * TIMES)


def nested(depth: int) -> bytes:
    """A protobuf message in a message in a message: a schema of a definition may hold itself."""
    body = b""
    for _ in range(depth):
        body = b"\x0a" + varint(len(body)) + body
    return b"k8s\0" + body


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


LAUGHS = "\n".join(f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 9))
YAML, PROTOBUF = "application/yaml", "application/vnd.kubernetes.protobuf"
BOMBS: dict[str, tuple[str, bytes]] = {
    "laughs": (YAML, b"a0: &a0 [x]\n" + LAUGHS.encode()),
    "itself": (YAML, b"metadata: &m {name: c, labels: *m}"),
    "itself-merged": (YAML, b"data: &d\n  <<: *d\n  a: b"),
    "merged-often": (
        YAML,
        b"\n".join(
            [
                b"b0: &b0 {a: b}",
                *(b"b%d: &b%d {<<: [%s]}" % (i, i, b",".join([b"*b%d" % (i - 1)] * 9)) for i in range(1, 9)),
            ]
        ),
    ),
    "deep-flow": (YAML, b"data: " + b"[" * 20_000),
    "deep-blocks": (YAML, b"".join(b" " * i + b"a:\n" for i in range(600))),
    "many-documents": (YAML, b"---\na: b\n" * 5_000),
    "objects": (YAML, b"data: !!python/object/apply:os.system [true]"),
    "names": (YAML, b"data: !!python/name:os.system"),
    "times": (YAML, b"data: {a: 2001-12-14t21:59:43.10-05:00, b: !!set {x}, c: !!binary ////}"),
    "numbers": (YAML, b"immutable: " + b"9" * 20_000),
    "tabs": (YAML, b"data:\n\t- a\r\n\x00"),
    "utf-16": (YAML, "data: {a: b}".encode("utf-16")),
    "deep-json": ("application/json", b'{"a":' * 90_000),
    "deep-lists": ("application/json", b'{"data":' + b"[" * 90_000 + b"]" * 90_000 + b"}"),
    "huge-number": ("application/json", b'{"metadata":{"name":"z","generation":1e999}}'),
    "digits": ("application/json", b'{"metadata":{"generation":' + b"9" * 100_000 + b"}}"),
    "surrogates": ("application/json", b'{"metadata":{"name":"\\ud800"},"data":{"a":"\\udfff"}}'),
    "same-keys": ("application/json", b"{" + b'"data":{"a":"b"},' * 20_000 + b'"metadata":{"name":"BAD_NAME"}}'),
    "deep-protobuf": (PROTOBUF, nested(6_000)),
    "long-protobuf": (PROTOBUF, b"k8s\0\x0a" + varint(2**62) + b"x"),
    "endless-varint": (PROTOBUF, b"k8s\0" + b"\xff" * 50_000),
    "apply-laughs": ("application/apply-patch+yaml", b"a0: &a0 [x]\n" + LAUGHS.encode()),
    "merge-deep": ("application/merge-patch+json", b'{"data":' * 90_000),
    "strategic-deep": ("application/strategic-merge-patch+json", b'{"metadata":' * 50_000 + b"1" + b"}" * 50_000),
    "copies": (
        "application/json-patch+json",
        json.dumps([{"op": "copy", "from": "/data", "path": f"/data/{'x' * (i + 1)}"} for i in range(40)]).encode(),
    ),
}


def test_of_many_mistakes_some_are_told(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        wrong = {**configmap(), **{f"k{number}": 1 for number in range(5_000)}}
        answer = await world.http.post(CONFIGMAPS, json=wrong)
        assert answer.status_code == 201
        told = answer.headers.get_list("warning")
        assert (len(told), told[-1]) == (21, '299 - "and 4980 warnings more"')
        answer = await world.http.post(CONFIGMAPS, params={"fieldValidation": "Strict"}, json=wrong)
        assert (answer.status_code, answer.json()["message"][-13:]) == (400, "and 4900 more")

    run(tmp_path, check)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_and_change_nothing(tmp_path: Path, name: str) -> None:
    media, body = BOMBS[name]

    async def check(world: World) -> None:
        await world.make(CONFIGMAPS, configmap(a="b"))
        before = await world.store.revision()
        patch = "patch" in media
        asked = (
            [("PATCH", f"{CONFIGMAPS}/c?fieldManager=f")]
            if patch
            else [("POST", CONFIGMAPS), ("PUT", f"{CONFIGMAPS}/c")]
        )
        for method, path in asked:
            answer = await world.http.request(method, path, content=body, headers={"content-type": media})
            assert 400 <= answer.status_code < 500, answer.text[:500]
            assert answer.json()["message"]
            assert await world.store.revision() == before
        assert (await world.get(f"{CONFIGMAPS}/c"))["data"] == {"a": "b"}

    run(tmp_path, check)
