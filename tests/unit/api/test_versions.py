"""The same objects under another group and version."""

from pathlib import Path

from korch.resources.autoscaling import HorizontalPodAutoscaler
from korch.resources.misc import Event
from tests.unit.api.serving import World, run, shown, watching

OLD = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
NEW = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
CORE = "/api/v1/namespaces/default/events"
CORE_NAMES = {"note": "message", "regarding": "involvedObject", "reportingController": "reportingComponent"}
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"


def test_an_autoscaler_is_the_same_in_both_versions(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 70}
        made = await world.make(OLD, {"metadata": {"name": "web"}, "spec": spec})
        assert (made["apiVersion"], made["spec"]) == ("autoscaling/v1", spec)
        new = await world.get(f"{NEW}/web")
        assert new["apiVersion"] == "autoscaling/v2"
        assert new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
        listing = await world.get(OLD)
        assert (listing["apiVersion"], listing["items"]) == ("autoscaling/v1", [made])
        patch = {"spec": {"targetCPUUtilizationPercentage": 50}}
        merge = {"content-type": "application/merge-patch+json"}
        patched = await world.http.patch(f"{OLD}/web?fieldValidation=Strict", json=patch, headers=merge)
        assert patched.json()["spec"] == {**spec, **patch["spec"]}
        stored = await world.objects.get(HorizontalPodAutoscaler, "web")
        assert stored.spec.metrics[0].resource.target.average_utilization == 50
        async with watching(world, OLD) as watcher:
            event = (await watcher.take(1))[0]
            assert (event["type"], event["object"]["apiVersion"]) == ("ADDED", "autoscaling/v1")
        wrong = await world.http.post(OLD, json={"apiVersion": "autoscaling/v2", "metadata": {"name": "x"}})
        assert wrong.status_code == 400

    run(tmp_path, check)


def test_an_event_is_the_same_in_both_groups(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        event = {
            "metadata": {"name": "e.1"},
            "eventTime": "2026-01-02T03:04:05.678901Z",
            "reportingController": "x.io/c",
            "reportingInstance": "c-1",
            "action": "Doing",
            "reason": "Done",
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
            "note": "all is well",
            "type": "Normal",
            "series": {"count": 3, "lastObservedTime": "2026-01-02T03:05:00.000001Z"},
            "related": {"kind": "Node", "name": "n"},
        }
        strict = f"{EVENTS}?fieldValidation=Strict"
        made = await world.make(strict, event)
        told = {key: value for key, value in event.items() if key != "metadata"}
        assert {key: made[key] for key in told} == told
        core = await world.get(CORE, fieldSelector="involvedObject.name=p,reportingComponent=x.io/c,source=x.io/c")
        (old,) = core["items"]
        assert {old[CORE_NAMES.get(key, key)] == value for key, value in told.items()} == {True}
        again = await world.make(f"{CORE}?fieldValidation=Strict", {**old, "metadata": {"name": "e.2"}})
        assert {key: again[key] for key in old if key != "metadata"} == {
            k: v for k, v in old.items() if k != "metadata"
        }
        async with watching(world, EVENTS) as watcher:
            assert shown(await watcher.take(1)) == [("ADDED", "e.1")]
        stored = await world.objects.get(Event, "e.1")
        assert (stored.first_seen, stored.last_seen, stored.times) == (
            event["eventTime"],
            "2026-01-02T03:05:00.000001Z",
            3,
        )

    run(tmp_path, check)


def test_an_event_of_an_older_reporter_has_a_time_and_a_reporter_in_both_groups(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        old = {
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "firstTimestamp": "2026-01-02T03:04:05Z",
            "lastTimestamp": "2026-01-02T03:04:09Z",
            "count": 2,
            "source": {"component": "c", "host": "n1"},
            "message": "well",
        }
        await world.make(CORE, {"metadata": {"name": "e"}, **old})
        new = await world.get(f"{EVENTS}/e")
        assert (new["eventTime"], new["reportingController"], new["reportingInstance"], new["note"]) == (
            "2026-01-02T03:04:05.000000Z",
            "c",
            "n1",
            "well",
        )
        assert (new["deprecatedCount"], new["deprecatedSource"]) == (2, old["source"])
        assert "message" not in new
        assert len((await world.get(CORE, fieldSelector="reportingComponent=c"))["items"]) == 1
        merge = {"content-type": "application/merge-patch+json"}
        done = await world.http.patch(f"{EVENTS}/e?fieldValidation=Strict", json={"note": "ill"}, headers=merge)
        assert done.status_code == 200, done.text
        core = await world.get(f"{CORE}/e")
        assert {key: core[key] for key in old} == {**old, "message": "ill"}

    run(tmp_path, check)
