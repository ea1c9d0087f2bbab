"""The Python clients of Kubernetes at their everyday work: kubernetes, lightkube, kr8s, and an operator on kopf."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.apiserver import Served, served

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours

LABELS = {"app": "web"}
POD_SPEC = {"containers": [{"name": "c", "image": "web:1"}]}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": POD_SPEC},
    },
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.x.io"},
    "spec": {
        "scope": "Namespaced",
        "group": "x.io",
        "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
OPERATOR = """\
import kopf

@kopf.on.create("things")
@kopf.on.update("things")
def made(spec, **_):
    return {"seen": spec.get("field")}

@kopf.on.delete("things")
def gone(name, **_):
    print("deleted", name, flush=True)
"""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


def until(what: str, fits: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := fits()):
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.05)
    return found


def test_kubernetes(api: Served) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    client = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=api.url))
    core, apps = kubernetes.client.CoreV1Api(client), kubernetes.client.AppsV1Api(client)
    core.create_namespace({"metadata": {"name": "py"}})
    core.create_namespaced_secret("py", kubernetes.client.V1Secret(metadata={"name": "s"}, string_data={"a": "b"}))
    assert core.read_namespaced_secret("s", "py").data == {"a": "Yg=="}

    body = {**DEPLOYMENT, "metadata": {"name": "web"}}
    made = apps.create_namespaced_deployment("py", body)
    assert (made.spec.replicas, made.spec.strategy.type) == (2, "RollingUpdate")
    apps.patch_namespaced_deployment_scale("web", "py", {"spec": {"replicas": 3}})
    assert apps.read_namespaced_deployment_scale("web", "py").spec.replicas == 3
    assert [one.metadata.name for one in apps.list_namespaced_deployment("py", label_selector="!x").items] == ["web"]

    core.create_namespaced_pod("py", {"metadata": {"name": "p"}, "spec": POD_SPEC})
    events = kubernetes.watch.Watch().stream(core.list_namespaced_pod, "py", timeout_seconds=1)
    assert [(one["type"], one["object"].status.phase) for one in events] == [("ADDED", "Pending")]
    assert core.delete_namespaced_pod("p", "py").metadata.name == "p"
    service = {"metadata": {"name": "svc"}, "spec": {"selector": LABELS, "ports": [{"port": 80}]}}
    core.create_namespaced_service("py", service)
    assert core.delete_namespaced_service("svc", "py").metadata.name == "svc"
    daemons = {**DEPLOYMENT, "kind": "DaemonSet", "metadata": {"name": "ds"}}
    daemons["spec"] = {key: value for key, value in DEPLOYMENT["spec"].items() if key != "replicas"}  # type: ignore[attr-defined]
    assert apps.create_namespaced_daemon_set("py", daemons).spec.update_strategy.type == "RollingUpdate"
    apps.delete_namespaced_daemon_set("ds", "py")
    assert apps.list_namespaced_daemon_set("py").items == []
    with pytest.raises(kubernetes.client.ApiException) as missing:
        core.read_namespaced_pod("zz", "py")
    assert missing.value.status == 404

    dynamic = kubernetes.dynamic.DynamicClient(client)
    configmaps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "y"}}
    applied = dynamic.server_side_apply(configmaps, body=wanted, name="c", namespace="py", field_manager="t")
    assert applied.data.to_dict() == {"x": "y"}
    core.delete_collection_namespaced_config_map("py")
    assert core.list_namespaced_config_map("py").items == []
    node = core.list_node().items[0]
    assert (node.status.node_info.architecture, node.status.allocatable["cpu"]) == ("", "4")
    assert kubernetes.client.VersionApi(client).get_code().major == "1"
    core.delete_namespace("py")
    until("the end of the namespace", lambda: "py" not in [one.metadata.name for one in core.list_namespace().items])


def test_lightkube(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    lightkube = pytest.importorskip("lightkube")
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap, Node
    from lightkube.types import PatchType

    monkeypatch.setenv("KUBECONFIG", str(api.config))
    client = lightkube.Client(field_manager="lk")

    def configmap(**data: str) -> Any:
        meta = ObjectMeta(name="c", namespace="default")
        return ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=meta, data=data)

    client.create(configmap(a="1"))
    client.patch(ConfigMap, "c", {"data": {"b": "2"}}, patch_type=PatchType.MERGE)
    assert client.get(ConfigMap, "c").data == {"a": "1", "b": "2"}
    client.delete(ConfigMap, "c")
    assert client.apply(configmap(a="1", b="2")).data == {"a": "1", "b": "2"}
    assert client.apply(configmap(a="1")).data == {"a": "1"}, "what is applied no more goes"
    client.create(Deployment.from_dict(DEPLOYMENT))
    scale = client.get(Deployment.Scale, "web")
    scale.spec.replicas = 5
    client.replace(scale)
    assert client.get(Deployment, "web").spec.replicas == 5
    for event, found in client.watch(ConfigMap, server_timeout=1):
        assert (event, found.metadata.name) == ("ADDED", "c")
        break
    assert [node.metadata.name for node in client.list(Node)] == ["n1"]


def test_kr8s(api: Served) -> None:
    kr8s = pytest.importorskip("kr8s")
    from kr8s.objects import ConfigMap, Deployment

    client = kr8s.api(kubeconfig=str(api.config))
    assert client.version()["major"] == "1"
    found = ConfigMap({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}}, api=client)
    found.create()
    found.patch({"data": {"x": "y"}})
    found.label({"l": "m"})
    found.refresh()
    assert found.data == {"a": "b", "x": "y"}
    assert [one.name for one in client.get("configmaps", label_selector="l=m")] == ["c"]
    deployment = Deployment(DEPLOYMENT, api=client)
    deployment.create()
    deployment.patch({"spec": {"replicas": 3}})
    assert (deployment.replicas, deployment.exists()) == (3, True)
    for one in (found, deployment):
        one.delete()
        assert not one.exists()


def test_an_operator_with_finalizers_on_kopf(api: Served, tmp_path: Path) -> None:
    pytest.importorskip("kopf")
    kubernetes = pytest.importorskip("kubernetes")
    client = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=api.url))
    kubernetes.client.ApiextensionsV1Api(client).create_custom_resource_definition(CRD)
    things = kubernetes.client.CustomObjectsApi(client)
    place = ("x.io", "v1", "default", "things")
    (tmp_path / "operator.py").write_text(OPERATOR)
    env = {**os.environ, "KUBECONFIG": str(api.config), "HOME": str(tmp_path)}
    words = (sys.executable, "-m", "kopf", "run", "--standalone", "-n", "default", "operator.py")
    log = (tmp_path / "operator.log").open("w+")
    operator = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        body = {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"field": "one"}}
        things.create_namespaced_custom_object(*place, body)

        def seen(text: str) -> bool:
            found = things.get_namespaced_custom_object(*place, "t")
            return text in str(found.get("status")) and bool(found["metadata"].get("finalizers"))

        until("the operator's word", lambda: seen("one"))
        things.patch_namespaced_custom_object(*place, "t", {"spec": {"field": "two"}})
        until("its next word", lambda: seen("two"))
        things.delete_namespaced_custom_object(*place, "t")
        until("the end", lambda: not things.list_namespaced_custom_object(*place)["items"])
    finally:
        operator.send_signal(signal.SIGINT)
        operator.wait(20)
        log.seek(0)
        said = log.read()
        log.close()
    assert "deleted t" in said, said
    assert "Traceback" not in said, said
