"""Jobs, CronJobs and endpoints of services on real nodes of both engines, with a master that leads."""

from typing import Any

import pytest

from tests.lab.faulty import Faulty
from tests.lab.korch_cli import Run
from tests.lab.mastering import AT_ONCE, all_ready, eventually, mastered, places

pytestmark = pytest.mark.faults
JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  completions: {completions}
  parallelism: 2
  backoffLimit: {limit}
  completionMode: Indexed
  template:
    spec:
      restartPolicy: {policy}
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      containers:
        - name: work
          image: "{image}"
          command: [sh, -c, '{script}']
---
"""
AGAIN = "echo number $JOB_COMPLETION_INDEX; test -f /tmp/again || { touch /tmp/again; exit 3; }"
CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {{name: often}}
spec:
  schedule: "* * * * *"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      ttlSecondsAfterFinished: 600
      template:
        spec:
          restartPolicy: Never
          containers: [{{name: work, image: "{image}", command: ["true"]}}]
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def applied(site: Faulty, text: str) -> Run:
    manifest = site.korch.cwd / "manifest.yml"
    manifest.write_text(text)
    return site.korch("apply", "-f", str(manifest), "--no-wait")


def status_of(site: Faulty, name: str) -> dict[str, Any]:
    found = site.korch.objects("job", name)[0].get("status", {})
    return found if isinstance(found, dict) else {}


def ended(site: Faulty, name: str) -> str:
    conditions = status_of(site, name).get("conditions") or ()
    return next((one["type"] for one in conditions if one["status"] == "True"), "")


def test_jobs_run_to_their_end_on_both_engines(faulty: Faulty) -> None:
    image = faulty.image()
    text = ""
    for node in ("d1", "p1"):
        never = {"policy": "Never", "script": "echo number $JOB_COMPLETION_INDEX", "limit": 0}
        for name, more in (
            ("once", never),
            ("again", {"policy": "OnFailure", "script": AGAIN, "limit": 9}),
            ("fails", {"policy": "Never", "script": "exit 3", "limit": 0}),
        ):
            text += JOB.format(name=f"{name}-{node}", node=node, image=image, completions=2, **more)
    with mastered(faulty):
        applied(faulty, text)
        for node in ("d1", "p1"):
            for name, verdict in (("once", "Complete"), ("again", "Complete"), ("fails", "Failed")):
                eventually(f"{name}-{node}", lambda name=name, node=node: bool(ended(faulty, f"{name}-{node}")))
                status = status_of(faulty, f"{name}-{node}")
                assert ended(faulty, f"{name}-{node}") == verdict, status
                if verdict == "Complete":
                    assert (status["succeeded"], status["completedIndexes"]) == (2, "0-1")
                    assert "failed" not in status
        pods = [pod for pod in faulty.korch.objects("pods") if pod["metadata"]["name"].startswith("again-")]
        assert len(pods) == 4
        assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 1 for pod in pods)
        one = next(pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"].startswith("again-p1-1-"))
        assert faulty.korch("logs", one).out.splitlines() == ["number 1", "number 1"]
        for node in ("d1", "p1"):
            for name in ("once", "again", "fails"):
                faulty.korch("delete", "job", f"{name}-{node}")
        eventually("their pods are gone", lambda: not faulty.korch.objects("pods"))
        assert not faulty.seen()


def test_work_on_a_lost_node_goes_on_elsewhere_and_is_ended_there(faulty: Faulty) -> None:
    text = JOB.format(
        name="long", node="any", image=faulty.image(), completions=2, policy="Never", script="exec sleep 900", limit=6
    ).replace("      nodeSelector: {kubernetes.io/hostname: any}\n", "")
    with mastered(faulty) as master:
        applied(faulty, text)
        eventually("two pods", lambda: all_ready(faulty, "long-", 2))
        lost = sorted(set(places(faulty, "long-").values()))[0]
        there = {uid for uid, node in places(faulty, "long-").items() if node == lost}
        faulty.lab.partition(lost)
        eventually("two pods without it", lambda: all_ready(faulty, "long-", 2, without=lost))
        assert status_of(faulty, "long")["failed"] == len(there)
        faulty.lab.heal(lost)
        master.says(f"{lost}: is back")
        eventually("its containers have ended", lambda: not [one for one in faulty.seen() if one.node == lost])
        assert len(faulty.seen()) == 2
        assert not there & {pod["metadata"]["uid"] for pod in faulty.korch.objects("pods")}
        faulty.korch("delete", "job", "long")
        eventually("nothing is left", lambda: not faulty.seen())


def test_a_cron_job_makes_a_job_each_minute(faulty: Faulty) -> None:
    told = applied(faulty, CRON.format(image=faulty.image())).err
    assert "CronJob: nothing happens before a master leads" in told, told
    with mastered(faulty):
        eventually("a job has ended", lambda: any("completionTime" in job["status"] for job in jobs_of(faulty)))
        eventually(
            "it is on record", lambda: "lastSuccessfulTime" in faulty.korch.objects("cronjob", "often")[0]["status"]
        )
        faulty.korch("delete", "cronjob", "often")
        eventually("its jobs are gone", lambda: not jobs_of(faulty) and not faulty.korch.objects("pods"))


def jobs_of(site: Faulty) -> list[dict[str, Any]]:
    return [job for job in site.korch.objects("jobs") if job["metadata"]["name"].startswith("often-")]


def test_endpoints_follow_the_pods(faulty: Faulty) -> None:
    with mastered(faulty):
        applied(faulty, SERVICE)
        faulty.korch("deploy", faulty.image(), "--replicas", "4", "--port", "18080:8080", *AT_ONCE)
        eventually("four endpoints", lambda: endpoints(faulty) == set(places(faulty)))
        ports = {
            (port["name"], port["port"]) for found in faulty.korch.objects("endpointslices") for port in found["ports"]
        }
        assert {number for _, number in ports} == {18080}
        faulty.korch("scale", "web=2")
        eventually("two endpoints", lambda: all_ready(faulty, "web", 2) and endpoints(faulty) == set(places(faulty)))
        faulty.korch("delete", "service", "web")
        eventually("no endpoints", lambda: not faulty.korch.objects("endpointslices"))


def endpoints(site: Faulty) -> set[str]:
    return {
        endpoint["targetRef"]["uid"]
        for found in site.korch.objects("endpointslices")
        for endpoint in found.get("endpoints", ())
        if endpoint["conditions"].get("ready")
    }
