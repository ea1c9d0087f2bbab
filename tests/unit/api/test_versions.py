"""The same objects under another group and version."""

from pathlib import Path

from korch.resources.autoscaling import HorizontalPodAutoscaler
from tests.unit.api.serving import World, run, shown, watching

OLD = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
NEW = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
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
        }
        made = await world.make(EVENTS, event)
        assert (made["apiVersion"], made["note"], made["eventTime"]) == (
            "events.k8s.io/v1",
            "all is well",
            "2026-01-02T03:04:05.000000Z",
        )
        core = await world.get("/api/v1/namespaces/default/events", fieldSelector="involvedObject.name=p")
        assert [(one["message"], one["source"]) for one in core["items"]] == [
            ("all is well", {"component": "x.io/c", "host": "c-1"})
        ]
        assert len((await world.get(EVENTS, fieldSelector="regarding.name=p"))["items"]) == 1
        async with watching(world, EVENTS) as watcher:
            assert shown(await watcher.take(1)) == [("ADDED", "e.1")]

    run(tmp_path, check)
