"""Tables: the columns and cells of each kind."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.api.wire.tables import table
from korch.resources.kinds import KINDS, Kind

NOW = 1_800_000_000.0
AGO_5M, AGO_3D4H = "2027-01-15T07:55:00Z", "2027-01-12T04:00:00Z"  # NOW is 2027-01-15T08:00:00Z

Json = dict[str, Any]


@dataclass(frozen=True)
class Custom:
    name: str = "Widget"
    group: str = "example.com"


def kind(name: str, group: str | None = None) -> Kind | Custom:
    found = [one for one in KINDS if one.name == name]
    return found[0] if found and group is None else Custom(name, group or "")


def row(name: str, obj: Json, *, wide: bool = False, group: str | None = None) -> dict[str, Any]:
    """The cells of one object by header."""
    obj = {"metadata": {"name": "x", "creationTimestamp": AGO_5M}} | obj
    found = table(kind(name, group), [obj], now=NOW)
    headers = [column["name"] for column in found["columnDefinitions"]]
    assert len(headers) == len(found["rows"][0]["cells"])
    shown = [wide or not column["priority"] for column in found["columnDefinitions"]]
    cells = zip(headers, found["rows"][0]["cells"], shown, strict=True)
    return {header: cell for header, cell, show in cells if show}


def values(*args: Any, **options: Any) -> list[Any]:
    return list(row(*args, **options).values())


# --- the table itself ---


def test_a_table_as_clients_expect_it() -> None:
    meta = {"name": "a", "namespace": "n", "labels": {"x": "y"}, "creationTimestamp": AGO_3D4H}
    pod = {"metadata": meta, "spec": {}, "status": {}}
    found = table(kind("Pod"), [pod], now=NOW)
    assert (found["kind"], found["apiVersion"], found["metadata"]) == ("Table", "meta.k8s.io/v1", {})
    assert found["columnDefinitions"][0] == {
        "name": "Name",
        "type": "string",
        "format": "name",
        "priority": 0,
        "description": found["columnDefinitions"][0]["description"],
    }
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    assert found["rows"] == [
        {"cells": ["a", "0/0", "Pending", "0", "3d4h", "<none>", "<none>", "<none>", "<none>"], "object": partial}
    ]
    assert table(kind("Pod"), [], now=NOW)["rows"] == []


def test_what_comes_with_each_row() -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "n"}}
    assert table(kind("Pod"), [pod], now=NOW, include="Object")["rows"][0]["object"] == pod
    assert table(kind("Pod"), [pod], now=NOW, include="None")["rows"][0]["object"] is None
    beta = table(kind("Pod"), [pod], now=NOW, version="v1beta1")
    assert beta["apiVersion"] == beta["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"


@pytest.mark.parametrize("one", KINDS, ids=lambda one: one.name)
def test_every_kind_has_rows_even_for_an_empty_object(one: Kind) -> None:
    found = table(one, [{"metadata": {"name": "x"}}, {}], now=NOW)
    headers = [column["name"] for column in found["columnDefinitions"]]
    assert "Name" in headers
    for each in found["rows"]:
        assert len(each["cells"]) == len(headers)
        for column, cell in zip(found["columnDefinitions"], each["cells"], strict=True):
            assert isinstance(cell, int) == (column["type"] == "integer" or isinstance(cell, bool))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["name", "type", "status", "state", "waiting", "terminated", "reason", "ports", "conditions"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
PARTS = st.dictionaries(
    st.sampled_from(["containers", "containerStatuses", "conditions", "addresses", "ports", "replicas", "template"]),
    ODD,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS), PARTS, PARTS)
def test_odd_objects_have_rows_too(one: Kind, spec: Json, status: Json) -> None:
    table(one, [{"metadata": {"name": "x"}, "spec": spec, "status": status}], now=NOW)


# --- pods ---


def waiting(reason: str = "") -> Json:
    return {"state": {"waiting": {"reason": reason}}}


def running(*, ready: bool = True) -> Json:
    return {"state": {"running": {"startedAt": AGO_5M}}, "ready": ready}


def ended(code: int = 0, reason: str = "", signal: int = 0) -> Json:
    return {"state": {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}}


def a_pod(phase: str, *statuses: Json, **more: Any) -> Json:
    status: Json = {"phase": phase, "containerStatuses": list(statuses)}
    return {"spec": {"containers": [{"name": "a"}] * max(1, len(statuses))}, "status": status | more}


SIDECAR = {"name": "side", "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("pod", "word", "ready"),
    [
        (a_pod("Running", running()), "Running", "1/1"),
        (a_pod("Running", running(), running(ready=False)), "Running", "1/2"),
        (a_pod("Pending", waiting("ContainerCreating")), "ContainerCreating", "0/1"),
        (a_pod("Pending", waiting("ImagePullBackOff")), "ImagePullBackOff", "0/1"),
        (a_pod("Running", waiting("CrashLoopBackOff")), "CrashLoopBackOff", "0/1"),
        (a_pod("Running", running(), waiting("CrashLoopBackOff")), "CrashLoopBackOff", "1/2"),
        (a_pod("Succeeded", ended(0, "Completed")), "Completed", "0/1"),
        (a_pod("Failed", ended(1, "Error")), "Error", "0/1"),
        (a_pod("Failed", ended(137, "OOMKilled")), "OOMKilled", "0/1"),
        (a_pod("Failed", ended(3)), "ExitCode:3", "0/1"),
        (a_pod("Failed", ended(137, signal=9)), "Signal:9", "0/1"),
        (a_pod("Failed", reason="Evicted"), "Evicted", "0/1"),
        (a_pod("Running", ended(0, "Completed"), running()), "NotReady", "1/2"),
        (
            a_pod("Running", ended(0, "Completed"), running(), conditions=[{"type": "Ready", "status": "True"}]),
            *("Running", "1/2"),
        ),
        (
            a_pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            *("SchedulingGated", "0/1"),
        ),
        (a_pod("Running", running(), reason="NodeLost"), "NodeLost", "0/1"),
    ],
)
def test_the_word_for_a_pod(pod: Json, word: str, ready: str) -> None:
    found = row("Pod", pod)
    assert (found["Status"], found["Ready"]) == (word, ready)


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ([running(), waiting()], "Init:0/2"),
        ([ended(0, "Completed"), waiting("PodInitializing")], "Init:1/2"),
        ([waiting("ImagePullBackOff")], "Init:ImagePullBackOff"),
        ([ended(1, "Error")], "Init:Error"),
        ([ended(2)], "Init:ExitCode:2"),
        ([ended(0), ended(137, signal=9)], "Init:Signal:9"),
        ([ended(0), ended(0)], "PodInitializing"),
    ],
)
def test_the_word_while_init_containers_run(statuses: list[Json], word: str) -> None:
    pod = a_pod("Pending", waiting("PodInitializing"), initContainerStatuses=statuses)
    pod["spec"]["initContainers"] = [{"name": "i"}, {"name": "j"}]
    assert row("Pod", pod)["Status"] == word


def test_sidecars_count_as_containers() -> None:
    side = {**running(), "name": "side", "started": True, "restartCount": 1}
    pod = a_pod("Running", {**running(), "restartCount": 1}, initContainerStatuses=[side])
    pod["spec"]["initContainers"] = [SIDECAR]
    assert values("Pod", pod)[1:4] == ["2/2", "Running", "2"]


def test_a_pod_that_is_deleted() -> None:
    meta = {"metadata": {"name": "x", "deletionTimestamp": AGO_5M}}
    assert row("Pod", a_pod("Running", running()) | meta)["Status"] == "Terminating"
    assert row("Pod", a_pod("Failed", ended(1, "Error")) | meta)["Status"] == "Error"
    assert row("Pod", a_pod("Running", running(), reason="NodeLost") | meta)["Status"] == "Unknown"


def test_restarts_tell_when_the_last_one_was() -> None:
    last = {"lastState": {"terminated": {"finishedAt": AGO_5M}}}
    assert row("Pod", a_pod("Running", {**running(), "restartCount": 3, **last}))["Restarts"] == "3 (5m ago)"
    assert row("Pod", a_pod("Running", {**running(), "restartCount": 3}))["Restarts"] == "3"
    starting = a_pod("Pending", initContainerStatuses=[{**waiting("CrashLoopBackOff"), "restartCount": 2}])
    assert row("Pod", starting)["Restarts"] == "2"


def test_a_pod_wide() -> None:
    pod = a_pod(
        "Running",
        running(),
        podIPs=[{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
        conditions=[{"type": "gate", "status": "True"}],
    )
    pod["spec"] |= {"nodeName": "n1", "readinessGates": [{"conditionType": "gate"}, {"conditionType": "other"}]}
    assert values("Pod", pod, wide=True)[5:] == ["10.0.0.1", "n1", "<none>", "1/2"]


# --- workloads ---

TEMPLATE = {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:2"}]}}
SELECTOR = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["y", "x"]}]}
WIDE = ["a,b", "i:1,i:2", "app=web,t in (x,y)"]


def test_deployments_and_sets() -> None:
    spec = {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR}
    status = {"replicas": 4, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}
    assert values("Deployment", {"spec": spec, "status": status}, wide=True) == ["x", "2/3", 1, 2, "5m", *WIDE]
    assert values("ReplicaSet", {"spec": spec, "status": status}, wide=True) == ["x", 3, 4, 2, "5m", *WIDE]
    assert values("StatefulSet", {"spec": spec, "status": status}, group="apps") == ["x", "2/3", "5m"]
    assert values("Deployment", {"spec": {"replicas": 0}}) == ["x", "0/0", 0, 0, "5m"]


def test_daemon_sets() -> None:
    template = {"spec": TEMPLATE["spec"] | {"nodeSelector": {"b": "2", "a": "1"}}}
    status = {"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "numberAvailable": 1}
    found = values("DaemonSet", {"spec": {"template": template, "selector": SELECTOR}, "status": status}, wide=True)
    assert found == ["x", 5, 4, 3, 0, 1, "a=1,b=2", "5m", *WIDE]


@pytest.mark.parametrize(
    ("job", "cells"),
    [
        ({"spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": AGO_5M}}, ["Running", "1/3", "5m"]),
        (
            {
                "spec": {"completions": 1},
                "status": {
                    "succeeded": 1,
                    "startTime": AGO_5M,
                    "completionTime": "2027-01-15T07:55:42Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["Complete", "1/1", "42s"],
        ),
        (
            {
                "spec": {"completions": 1},
                "status": {
                    "startTime": AGO_5M,
                    "conditions": [
                        {"type": "Failed", "status": "True", "lastTransitionTime": "2027-01-15T07:56:00Z"},
                    ],
                },
            },
            ["Failed", "0/1", "60s"],
        ),
        ({"spec": {"parallelism": 4}}, ["Running", "0/1 of 4", ""]),
        ({"spec": {}, "status": {"conditions": [{"type": "Suspended", "status": "True"}]}}, ["Suspended", "0/1", ""]),
        (
            {"spec": {}, "metadata": {"name": "x", "deletionTimestamp": AGO_5M, "creationTimestamp": AGO_5M}},
            ["Terminating", "0/1", ""],
        ),
    ],
)
def test_jobs(job: Json, cells: list[str]) -> None:
    assert values("Job", job) == ["x", *cells, "5m"]


def test_cron_jobs() -> None:
    spec = {"schedule": "*/5 * * * *", "suspend": False, "jobTemplate": {"spec": {"template": TEMPLATE}}}
    status = {"active": [{}], "lastScheduleTime": AGO_5M}
    found = values("CronJob", {"spec": spec, "status": status}, wide=True)
    assert found == ["x", "*/5 * * * *", "<none>", "False", 1, "5m", "5m", "a,b", "i:1,i:2", "<none>"]
    assert row("CronJob", {"spec": {"timeZone": "Etc/UTC"}})["Timezone"] == "Etc/UTC"
    assert row("CronJob", {"spec": {}})["Last Schedule"] == "<none>"


def test_autoscalers() -> None:
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}
    memory = {"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "1Gi"}}}
    seen = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 55}}}
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5}
    hpa = {"spec": {**spec, "metrics": [cpu, memory]}, "status": {"currentMetrics": [seen], "currentReplicas": 2}}
    targets = "cpu: 55%/80%, memory: <unknown>/1Gi"
    assert values("HorizontalPodAutoscaler", hpa) == ["x", "Deployment/web", targets, "1", 5, 2, "5m"]
    many = {"spec": {**spec, "metrics": [cpu] * 4}}
    assert row("HorizontalPodAutoscaler", many)["Targets"].endswith("cpu: <unknown>/80% + 2 more...")
    old = {"spec": {**spec, "targetCPUUtilizationPercentage": 70}}
    assert row("HorizontalPodAutoscaler", old)["Targets"] == "cpu: <unknown>/70%"


def test_budgets_and_revisions() -> None:
    budget = {"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}
    assert values("PodDisruptionBudget", budget) == ["x", "50%", "N/A", 1, "5m"]
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": True}
    meta = {"name": "x", "creationTimestamp": AGO_5M, "ownerReferences": [owner]}
    assert values("ControllerRevision", {"metadata": meta, "revision": 3}) == ["x", "daemonset.apps/d", 3, "5m"]


# --- nodes, services, events ---


def test_nodes() -> None:
    node = {
        "metadata": {
            "name": "n",
            "creationTimestamp": AGO_3D4H,
            "labels": {"node-role.kubernetes.io/b": "", "node-role.kubernetes.io/a": "", "z": ""},
        },
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}],
            "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian", "containerRuntimeVersion": "docker://20"},
        },
    }
    status = "Ready,SchedulingDisabled"
    assert values("Node", node, wide=True) == [
        *("n", status, "a,b", "3d4h", "v1", "10.0.0.1", "<none>", "Debian", "<unknown>", "docker://20")
    ]
    assert row("Node", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})["Status"] == "NotReady"
    assert row("Node", {})["Status"] == "Unknown"


def test_services() -> None:
    ports = [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]
    spec = {"type": "NodePort", "clusterIP": "None", "ports": ports, "selector": {"b": "2", "a": "1"}}
    assert values("Service", {"spec": spec}, wide=True) == [
        *("x", "NodePort", "None", "<none>", "80/TCP,53:30053/UDP", "5m", "a=1,b=2")
    ]
    balanced = {"spec": {"type": "LoadBalancer"}}
    assert row("Service", balanced)["External-IP"] == "<pending>"
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}
    assert row("Service", balanced)["External-IP"] == "1.2.3.4"
    named = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    assert values("Service", named)[1:5] == ["ExternalName", "<none>", "example.com", "<none>"]


def test_endpoint_slices() -> None:
    slice_ = {
        "addressType": "IPv4",
        "ports": [{"port": 80}, {"port": 443}],
        "endpoints": [{"addresses": [f"10.0.0.{n}"]} for n in range(1, 6)],
    }
    assert values("EndpointSlice", slice_) == [*("x", "IPv4", "80,443", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...", "5m")]
    assert values("EndpointSlice", {"addressType": "IPv4"})[2:4] == ["<unset>", "<unset>"]


def test_events() -> None:
    event = {
        "type": "Warning",
        "reason": "BackOff",
        "message": "again \n",
        "count": 4,
        "firstTimestamp": AGO_3D4H,
        "lastTimestamp": AGO_5M,
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"},
        "source": {"component": "korch", "host": "n1"},
    }
    assert values("Event", event) == ["5m", "Warning", "BackOff", "pod/web", "again"]
    whole = row("Event", event, wide=True)
    assert [whole[name] for name in ("Subobject", "Source", "First Seen", "Count", "Name")] == [
        *("spec.containers{a}", "korch, n1", "3d4h", 4, "x")
    ]
    series = {"eventTime": AGO_3D4H, "series": {"count": 9, "lastObservedTime": AGO_5M}, "reportingComponent": "c"}
    found = row("Event", series, wide=True)
    assert [found[name] for name in ("Last Seen", "First Seen", "Count", "Source")] == ["5m", "3d4h", 9, "c"]


# --- the small kinds ---


@pytest.mark.parametrize(
    ("name", "obj", "cells"),
    [
        ("Namespace", {"status": {"phase": "Active"}}, ["Active", "5m"]),
        ("ConfigMap", {"data": {"a": "1"}, "binaryData": {"b": "MQ=="}}, [2, "5m"]),
        ("Secret", {"type": "helm.sh/release.v1", "data": {"a": "MQ=="}}, ["helm.sh/release.v1", 1, "5m"]),
        ("ServiceAccount", {"secrets": [{"name": "a"}]}, [1, "5m"]),
        ("Lease", {"spec": {"holderIdentity": "me"}}, ["me", "5m"]),
        ("CustomResourceDefinition", {}, [AGO_5M]),
        ("Role", {"rules": []}, [AGO_5M]),
        ("RoleBinding", {"roleRef": {"kind": "Role", "name": "r"}}, ["Role/r", "5m"]),
        ("Ingress", {"spec": {"rules": [{"host": "h"}], "tls": [{}]}}, ["<none>", "h", "", "80, 443", "5m"]),
        ("IngressClass", {"spec": {"controller": "c/d"}}, ["c/d", "<none>", "5m"]),
        ("NetworkPolicy", {"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}, ["a=b", "5m"]),
        ("ResourceQuota", {"spec": {"hard": {"pods": "2", "limits.cpu": "1"}}}, ["pods: ?/2", "limits.cpu: ?/1", "5m"]),
        ("PriorityClass", {"value": 7}, [7, False, "5m", "PreemptLowerPriority"]),
        ("StorageClass", {"provisioner": "p"}, ["p", "Delete", "Immediate", False, "5m"]),
        ("NodeLoad", {"cpuBusy": 0.5, "memoryTotalBytes": 4, "memoryAvailableBytes": 3, "load1": 1.25, "cpuCount": 2,
                      "sampledAt": AGO_5M}, ["50%", "25%", "<unknown>", "1.25/2", "5m"]),
    ],
)  # fmt: skip
def test_a_small_kind(name: str, obj: Json, cells: list[Any]) -> None:
    assert values(name, obj) == ["x", *cells]


def test_a_namespace_that_goes_and_who_is_bound() -> None:
    assert row("Namespace", {"metadata": {"name": "x", "deletionTimestamp": AGO_5M}})["Status"] == "Terminating"
    subjects = [
        {"kind": "User", "name": "jane"},
        {"kind": "ServiceAccount", "name": "sa", "namespace": "n"},
        {"kind": "User", "name": "joe"},
        {"kind": "Martian", "name": "m"},
    ]
    bound = row(
        "ClusterRoleBinding", {"subjects": subjects, "roleRef": {"kind": "ClusterRole", "name": "r"}}, wide=True
    )
    assert [bound[name] for name in ("Role", "Users", "Groups", "ServiceAccounts")] == [
        *("ClusterRole/r", "jane, joe", "", "n/sa")
    ]


# --- custom kinds ---


def test_custom_kinds_have_name_and_age_or_what_they_define() -> None:
    assert values("Widget", {}, group="example.com") == ["x", "5m"]
    defined = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Tags", "type": "string", "jsonPath": ".spec.tags[*]", "priority": 1},
        {"name": "First", "type": "string", "jsonPath": "{.spec.tags[0]}"},
        {"name": "Note", "type": "string", "jsonPath": r".metadata.annotations.example\.com/note"},
        {"name": "Quoted", "type": "string", "jsonPath": ".metadata.annotations['example.com/note']"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Map", "type": "string", "jsonPath": ".spec.map"},
        {"name": "Wrong", "type": "integer", "jsonPath": ".spec.map"},
        {"name": "Nowhere", "type": "string", "jsonPath": ".spec.nothing.here"},
        {"name": "Broken", "type": "string", "jsonPath": ".spec[("},
        {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
    ]
    widget = {
        "metadata": {"name": "w", "creationTimestamp": AGO_3D4H, "annotations": {"example.com/note": "hi"}},
        "spec": {"size": 3, "tags": ["a", "b"], "map": {"k": 1}, "on": False},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    found = table(Custom(), [widget], now=NOW, columns=defined)
    assert found["rows"][0]["cells"] == [
        *("w", 3, "True", "a b", "a", "hi", "hi", "3d4h", '{"k":1}', None, None, None, False)
    ]
    assert [column["priority"] for column in found["columnDefinitions"]][:4] == [0, 0, 0, 1]


def test_a_custom_kind_may_be_called_like_one_of_kubernetes() -> None:
    assert values("Service", {}, group="serving.example.com") == ["x", "5m"]


@settings(max_examples=200, deadline=None)
@given(st.text(".a[]*?@='\"()\\0-$ {}", max_size=25))
def test_any_path_gives_a_cell(path: str) -> None:
    found = table(Custom(), [{"a": [{"a": 1}]}], now=NOW, columns=[{"name": "P", "jsonPath": path}])
    assert len(found["rows"][0]["cells"]) == 2
