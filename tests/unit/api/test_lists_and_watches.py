"""Lists and watches: fresh, paged, selected; every change once and in order, or word that it is gone."""

import asyncio
import random
from pathlib import Path

import pytest

from korch.api import cache as caching
from korch.api import watching as watches
from korch.resources.codec import with_meta
from korch.resources.config import ConfigMap
from korch.resources.meta import ObjectMeta
from tests.unit.api.serving import CONFIGMAPS, PODS, Watcher, World, configmap, pod, run, shown, watching

MERGE = {"content-type": "application/merge-patch+json"}


async def fill(world: World, count: int) -> None:
    for number in range(count):
        await world.objects.create(
            ConfigMap(metadata=ObjectMeta(name=f"c{number:03}", labels={"even": str(number % 2 == 0)}))
        )


async def label(world: World, name: str, text: str | None) -> None:
    answer = await world.http.patch(f"{CONFIGMAPS}/{name}", json={"metadata": {"labels": {"l": text}}}, headers=MERGE)
    assert answer.status_code == 200, answer.text


def names(listing: dict) -> list[str]:
    return [item["metadata"]["name"] for item in listing["items"]]


def test_a_list_has_what_was_just_written(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        assert await world.get(CONFIGMAPS) == {
            "kind": "ConfigMapList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(await world.store.revision())},
            "items": [],
        }
        for number in range(20):
            made = await world.make(CONFIGMAPS, configmap(f"c{number:02}"))
            listing = await world.get("/api/v1/configmaps")
            assert names(listing)[-1] == f"c{number:02}"
            assert int(listing["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
            assert listing["items"][-1] == made

    run(tmp_path, check)


def test_pages_are_of_one_state(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 10)
        first = await world.get(CONFIGMAPS, limit=4)
        assert first["metadata"]["remainingItemCount"] == 6
        await world.http.delete(f"{CONFIGMAPS}/c009")
        await world.make(CONFIGMAPS, configmap("c0055"))
        second = await world.get(CONFIGMAPS, limit=4, **{"continue": first["metadata"]["continue"]})
        third = await world.get(CONFIGMAPS, limit=4, **{"continue": second["metadata"]["continue"]})
        assert names(first) + names(second) + names(third) == [f"c{number:03}" for number in range(10)]
        assert {page["metadata"]["resourceVersion"] for page in (first, second, third)} == {
            first["metadata"]["resourceVersion"]
        }
        assert "continue" not in third["metadata"]

    run(tmp_path, check)


def test_a_page_of_a_forgotten_state_is_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "SNAPSHOTS", 1)

    async def check(world: World) -> None:
        await fill(world, 4)
        old = (await world.get(CONFIGMAPS, limit=2))["metadata"]["continue"]
        await world.make(CONFIGMAPS, configmap("x"))
        await world.get(CONFIGMAPS, limit=2)
        answer = await world.http.get(CONFIGMAPS, params={"limit": 2, "continue": old})
        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")

    run(tmp_path, check)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"labelSelector": "even=True"}, ["c000", "c002"]),
        ({"labelSelector": "even!=True"}, ["c001", "c003"]),
        ({"labelSelector": "none"}, []),
        ({"labelSelector": "even in (False),!none"}, ["c001", "c003"]),
        ({"fieldSelector": "metadata.name=c001"}, ["c001"]),
        ({"fieldSelector": "metadata.name!=c001,metadata.namespace=default"}, ["c000", "c002", "c003"]),
        ({"fieldSelector": "metadata.name==c001", "labelSelector": "even=True"}, []),
        ({"labelSelector": "even=False", "limit": "1"}, ["c001"]),
    ],
    ids=lambda value: "&".join(f"{key}={text}" for key, text in value.items()) if isinstance(value, dict) else "",
)
def test_selectors(tmp_path: Path, query: dict[str, str], wanted: list[str]) -> None:
    async def check(world: World) -> None:
        await fill(world, 4)
        assert names(await world.get(CONFIGMAPS, **query)) == wanted

    run(tmp_path, check)


def test_pods_are_selected_by_node_and_phase(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await world.make(PODS, pod("a", nodeName="n1"))
        await world.make(PODS, pod("b"))
        assert names(await world.get(PODS, fieldSelector="spec.nodeName=n1,status.phase!=Succeeded")) == ["a"]
        assert names(await world.get(PODS, fieldSelector="spec.nodeName=")) == ["b"]
        assert names(await world.get(PODS, fieldSelector="status.phase=Pending")) == ["a", "b"]

    run(tmp_path, check)


def test_versions_of_lists(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 2)
        now = int((await world.get(CONFIGMAPS))["metadata"]["resourceVersion"])
        assert len((await world.get(CONFIGMAPS, resourceVersion="0"))["items"]) == 2
        exact = await world.get(CONFIGMAPS, resourceVersion=now, resourceVersionMatch="Exact")
        assert exact["metadata"]["resourceVersion"] == str(now)
        past = await world.http.get(CONFIGMAPS, params={"resourceVersion": 1, "resourceVersionMatch": "Exact"})
        assert past.status_code == 410
        for query in (
            {"resourceVersionMatch": "Exact"},
            {"resourceVersion": "0", "resourceVersionMatch": "Exact"},
            {"resourceVersion": "1", "resourceVersionMatch": "Newish"},
        ):
            assert (await world.http.get(CONFIGMAPS, params=query)).status_code == 422
        assert (await world.http.get(CONFIGMAPS, params={"resourceVersion": "x"})).status_code == 400

    run(tmp_path, check)


def test_a_version_that_has_not_been_is_waited_for_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "_FRESH_S", 0.2)

    async def check(world: World) -> None:
        answer = await world.http.get(CONFIGMAPS, params={"resourceVersion": "99999"})
        assert answer.status_code == 504
        assert "Too large resource version" in answer.json()["message"]

    run(tmp_path, check)


def test_a_watch_tells_what_is_there_and_then_each_change(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 2)
        async with watching(world, CONFIGMAPS) as watcher:
            assert shown(await watcher.take(2)) == [("ADDED", "c000"), ("ADDED", "c001")]
            await world.make(CONFIGMAPS, configmap("d"))
            await label(world, "d", "x")
            await world.http.delete(f"{CONFIGMAPS}/d")
            events = await watcher.take(3)
            assert shown(events) == [("ADDED", "d"), ("MODIFIED", "d"), ("DELETED", "d")]
            versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
            assert versions == sorted(set(versions))
            assert events[2]["object"]["metadata"]["labels"] == {"l": "x"}  # its last state

    run(tmp_path, check)


def test_a_watch_from_a_version_tells_only_what_came_after(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 3)
        version = (await world.get(f"{CONFIGMAPS}/c001"))["metadata"]["resourceVersion"]
        async with watching(world, CONFIGMAPS, resourceVersion=version) as watcher:
            assert shown(await watcher.take(1)) == [("ADDED", "c002")]
            await world.http.delete(f"{CONFIGMAPS}/c000")
            assert shown(await watcher.take(1)) == [("DELETED", "c000")]

    run(tmp_path, check)


def test_what_the_cache_has_forgotten_comes_from_the_history(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        begin = await world.store.revision()
        await fill(world, 5)
        await world.http.delete(f"{CONFIGMAPS}/c002")
        await world.make(PODS, pod())
        await world.get(CONFIGMAPS)  # loads the cache, which begins here
        async with watching(world, CONFIGMAPS, resourceVersion=begin) as watcher:
            await world.make(CONFIGMAPS, configmap("d"))
            events = await watcher.take(7)
            assert shown(events) == [
                *(("ADDED", f"c{number:03}") for number in range(5)),
                ("DELETED", "c002"),
                ("ADDED", "d"),
            ]
            assert watcher.quiet()

    run(tmp_path, check)


def test_a_compacted_version_is_refused_before_the_stream(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 5)
        await world.store.compact(await world.store.revision() - 1)
        answer = await world.http.get(CONFIGMAPS, params={"watch": "1", "resourceVersion": "2"})
        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
        assert answer.json()["message"].startswith("too old resource version: 2 (")

    run(tmp_path, check)


def test_leaving_a_selection_is_a_deletion_and_entering_it_an_addition(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 2)
        async with watching(world, CONFIGMAPS, labelSelector="l=x") as watcher:
            await label(world, "c000", "x")
            await label(world, "c001", "y")
            await label(world, "c000", "y")
            events = await watcher.take(2)
            assert shown(events) == [("ADDED", "c000"), ("DELETED", "c000")]
            left = events[1]["object"]["metadata"]
            assert left["labels"]["l"] == "x"
            assert left["resourceVersion"] == (await world.get(f"{CONFIGMAPS}/c000"))["metadata"]["resourceVersion"]

    run(tmp_path, check)


def test_one_object_is_watched_by_its_name(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 3)
        query = {"fieldSelector": "metadata.name=c001", "resourceVersion": "0"}
        async with watching(world, CONFIGMAPS, **query) as watcher:
            await world.http.delete(f"{CONFIGMAPS}/c000")
            await world.http.delete(f"{CONFIGMAPS}/c001")
            assert shown(await watcher.take(2)) == [("ADDED", "c001"), ("DELETED", "c001")]

    run(tmp_path, check)


def test_initial_events_end_with_a_bookmark(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 2)
        wish = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
        async with watching(world, CONFIGMAPS, **wish) as watcher:
            *objects, bookmark = await watcher.take(3)
            assert shown(objects) == [("ADDED", "c000"), ("ADDED", "c001")]
            assert bookmark["type"] == "BOOKMARK"
            assert bookmark["object"]["kind"] == "ConfigMap"
            assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            version = bookmark["object"]["metadata"]["resourceVersion"]
        await world.make(CONFIGMAPS, configmap("d"))
        async with watching(world, CONFIGMAPS, resourceVersion=version) as watcher:
            assert shown(await watcher.take(1)) == [("ADDED", "d")]
        without = {"sendInitialEvents": "true", "watch": "1"}
        assert (await world.http.get(CONFIGMAPS, params=without)).status_code == 422

    run(tmp_path, check)


def test_a_watch_ends_in_time_with_a_bookmark(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 1)
        async with watching(world, CONFIGMAPS, timeoutSeconds=1, allowWatchBookmarks="true") as watcher:
            assert shown(await watcher.take(1)) == [("ADDED", "c000")]
            bookmark = (await watcher.take(1))[0]
            assert (bookmark["type"], int(bookmark["object"]["metadata"]["resourceVersion"])) == (
                "BOOKMARK",
                await world.store.revision(),
            )
            assert await watcher.next() is None

    run(tmp_path, check)


def test_bookmarks_come_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "BOOKMARK_S", 0.05)

    async def check(world: World) -> None:
        await world.make(PODS, pod())
        async with watching(world, CONFIGMAPS, allowWatchBookmarks="true") as watcher:
            assert [event["type"] for event in await watcher.take(2)] == ["BOOKMARK", "BOOKMARK"]
        async with watching(world, CONFIGMAPS, timeoutSeconds=1) as watcher:
            assert await watcher.next() is None

    run(tmp_path, check)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("32s", 32), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("", 0), ("x", 0), ("1", 0), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert watches.duration_s(text) == seconds


def test_watches_end_when_the_api_closes(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with watching(world, CONFIGMAPS) as watcher:
            await world.app.state.api.close()
            assert await watcher.next() is None

    run(tmp_path, check)


def test_who_falls_too_far_behind_is_told_to_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "KEPT_CHANGES", 4)

    async def check(world: World) -> None:
        cache = await world.app.state.api.cache.of(_configmaps())
        async with watching(world, CONFIGMAPS, resourceVersion=cache.loaded) as watcher:
            feed_place = cache.end
            await fill(world, 30)
            await world.get(CONFIGMAPS)  # is fresh: the cache has seen them
            seen = await drained(watcher)
        assert seen[-1]["type"] == "ERROR" or len(seen) == 30
        with pytest.raises(caching.ExpiredError):
            cache.since(feed_place, 10)

    run(tmp_path, check)


async def drained(watcher: Watcher) -> list[dict]:
    found = []
    while not watcher.quiet():
        event = await watcher.next()
        if event is None:
            break
        found.append(event)
        await asyncio.sleep(0)
    return found


def _configmaps():
    from korch.resources.kinds import CONFIGMAP

    return CONFIGMAP


def test_writers_of_other_processes_are_seen(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        from korch.objects.objects import Objects
        from korch.store.sqlite import open_sqlite

        other = await open_sqlite(tmp_path / "state.db")
        try:
            async with watching(world, CONFIGMAPS) as watcher:
                await Objects(other).create(ConfigMap(metadata=ObjectMeta(name="far")))
                assert shown(await watcher.take(1)) == [("ADDED", "far")]
                assert names(await world.get(CONFIGMAPS)) == ["far"]
        finally:
            await other.close()

    run(tmp_path, check)


def test_many_watchers_see_each_change_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are slow, some leave and come back from the last version they saw."""
    monkeypatch.setattr(caching, "KEPT_CHANGES", 64)
    writes, watchers = 300, 20
    chance = random.Random(7)

    async def follow(world: World, begin: int, end: int) -> list[int]:
        seen: list[int] = []
        last = begin
        while last < end:
            async with watching(world, CONFIGMAPS, resourceVersion=last) as watcher:
                stay = chance.randrange(5, 120)
                for _ in range(stay):
                    event = await watcher.next()
                    if event is None or event["type"] == "ERROR":
                        break
                    last = int(event["object"]["metadata"]["resourceVersion"])
                    seen.append(last)
                    if last >= end:
                        break
                    if chance.random() < 0.05:
                        await asyncio.sleep(0.01)
        return seen

    async def check(world: World) -> None:
        made = await world.objects.create(ConfigMap(metadata=ObjectMeta(name="c")))
        begin = int(made.metadata.resource_version)
        end = begin + writes
        followers = [asyncio.create_task(follow(world, begin, end)) for _ in range(watchers)]
        for number in range(writes):
            made = await world.objects.update(with_meta(made, labels={"n": str(number)}))
        for seen in await asyncio.gather(*followers):
            assert seen == list(range(begin + 1, end + 1))

    run(tmp_path, check)


def test_a_damaged_record_is_named_and_takes_nothing_else_away(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        await fill(world, 1)
        async with watching(world, CONFIGMAPS) as watcher:
            await world.store.put("/core/configmaps/default/bad", b"{")
            await world.make(CONFIGMAPS, configmap("good"))
            assert shown(await watcher.take(2)) == [("ADDED", "c000"), ("ADDED", "good")]
        assert names(await world.get(CONFIGMAPS)) == ["c000", "good"]
        answer = await world.http.get(f"{CONFIGMAPS}/bad")
        assert (answer.status_code, "/core/configmaps/default/bad" in answer.json()["message"]) == (500, True)

    run(tmp_path, check)


def test_a_store_that_cannot_be_followed_for_a_moment_is_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "_RETRY_S", 0.01)

    async def check(world: World) -> None:
        await fill(world, 1)
        real = world.store.watch
        left = [caching.StoreError("the disk is full"), RuntimeError("a bug")]

        def watch(prefix: str, *, after: int):
            if left:
                raise left.pop(0)
            return real(prefix, after=after)

        monkeypatch.setattr(world.store, "watch", watch)
        answers = [(await world.http.get(CONFIGMAPS)).status_code]
        while answers[-1] != 200:
            await asyncio.sleep(0.01)
            answers.append((await world.http.get(CONFIGMAPS)).status_code)
        assert set(answers[:-1]) == {503}

    run(tmp_path, check)
