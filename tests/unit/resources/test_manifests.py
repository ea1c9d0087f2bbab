import json

import pytest
import yaml

from korch.errors import InvalidError
from korch.resources.codec import to_dict
from korch.resources.manifests import load_manifests
from korch.resources.misc import Secret
from korch.resources.pod import Pod
from korch.resources.workload import Deployment

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.lab/web:1.4
        resources: {requests: {cpu: 0.5, memory: 64Mi}}
"""


def edited(old: str, new: str) -> str:
    assert old in DEPLOYMENT
    return DEPLOYMENT.replace(old, new)


def in_spec(line: str) -> str:
    """With a line more in the pod's spec, which is then line 11."""
    return edited("      containers:\n", f"      {line}\n      containers:\n")


def in_container(line: str) -> str:
    """With a line more in the container, which is then line 15."""
    return DEPLOYMENT + f"        {line}\n"


def test_a_deployment():
    loaded = load_manifests(DEPLOYMENT, "web.yml")
    ((obj, where),) = loaded.objects
    assert isinstance(obj, Deployment)
    assert where == "web.yml:1"
    assert obj.spec.replicas == 3
    assert obj.spec.template.spec.containers[0].resources.requests == {"cpu": 0.5, "memory": "64Mi"}
    assert loaded.warnings == ()
    assert to_dict(obj) == yaml.safe_load(DEPLOYMENT)


def test_several_documents_lists_and_json():
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"A": "x\ny ü"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [pod, secret]}
    loaded = load_manifests(json.dumps(listed, indent="\t") + "\n", "f.json")
    assert [type(obj) for obj, _ in loaded.objects] == [Pod, Secret]
    assert loaded.objects[1][0].string_data == {"A": "x\ny ü"}
    text = DEPLOYMENT + "---\n" + yaml.safe_dump(pod) + "---\n"
    assert [where for _, where in load_manifests(text, "f.yml").objects] == ["f.yml:1", "f.yml:16"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            edited("replicas", "replica"),
            'f.yml:6: Deployment "web": spec.replica: is not a field that korch knows; did you mean "replicas"?',
            id="misspelled",
        ),
        pytest.param(
            edited("image", "imgae"),
            'f.yml:13: Deployment "web": spec.template.spec.containers[0].imgae: is not a field that '
            'korch knows; did you mean "image"?',
            id="misspelled deep",
        ),
        pytest.param(
            in_spec("zzz: 1"),
            'f.yml:11: Deployment "web": spec.template.spec.zzz: is not a field that korch knows',
            id="unknown",
        ),
        pytest.param(
            edited("replicas: 3", "replicas: '3'"),
            'f.yml:6: Deployment "web": spec.replicas: must be a whole number, not text',
            id="text for a number",
        ),
        pytest.param(
            edited("replicas: 3", "replicas: true"),
            'f.yml:6: Deployment "web": spec.replicas: must be a whole number, not a boolean',
            id="boolean for a number",
        ),
        pytest.param(
            edited("replicas: 3", "replicas: -3"),
            'f.yml:6: Deployment "web": spec.replicas: -3 is less than 0',
            id="negative",
        ),
        pytest.param(
            edited("{app: web}}\n  template", "{app: db}}\n  template"),
            'f.yml:7: Deployment "web": spec.selector: does not match the labels of the template',
            id="selector",
        ),
        pytest.param(
            edited("name: web\nspec", "name: Web\nspec"),
            'f.yml:4: Deployment "Web": metadata.name: "Web" is not a DNS label (a-z, 0-9 and "-", '
            "not at the ends; at most 63)",
            id="name",
        ),
        pytest.param(
            in_container("env: [{name: A, value: 8080}]"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].env[0].value: must be text, '
            'not a number; write it in quotes: "8080"',
            id="number for a value",
        ),
        pytest.param(
            in_container("env: [{name: A, value: true}]"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].env[0].value: must be text, '
            'not a boolean; write it in quotes: "true"',
            id="boolean for a value",
        ),
        pytest.param(
            in_container("env: {A: b}"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].env: must be a list, not a mapping',
            id="mapping for a list",
        ),
        pytest.param(
            in_container("env: [{value: b}]"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].env[0].name: is missing',
            id="missing",
        ),
        pytest.param(
            in_container("ports: [{containerPort: 0}]"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].ports[0].containerPort: 0 '
            "is not a port (1-65535)",
            id="port",
        ),
        pytest.param(
            in_spec("hostNetwork: true"),
            'f.yml:11: Deployment "web": spec.template.spec.hostNetwork: is refused: publish the '
            "ports with containers[].ports[].hostPort",
            id="refused",
        ),
        pytest.param(
            in_spec("hostUsers: false"),
            'f.yml:11: Deployment "web": spec.template.spec.hostUsers: is refused: set up user '
            "namespaces in the node's engine",
            id="refused false",
        ),
        pytest.param(
            in_spec("securityContext: {fsGroup: 5}"),
            'f.yml:11: Deployment "web": spec.template.spec.securityContext.fsGroup: is refused: '
            "korch does not change the owner of files; use runAsUser and runAsGroup",
            id="refused in the pod's security context",
        ),
        pytest.param(
            in_container("securityContext: {fsGroup: 5}"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].securityContext.fsGroup: is '
            'not a field that korch knows; did you mean "runAsGroup"?',
            id="no field of the container's",
        ),
        pytest.param(
            in_spec("volumes: [{name: a, nfs: {server: x, path: /}}]"),
            'f.yml:11: Deployment "web": spec.template.spec.volumes[0].nfs: is refused: mount it on the nodes and use '
            "hostPath",
            id="volume",
        ),
        pytest.param(
            "a: b",
            "f.yml: 2 mistakes\n  f.yml:1: apiVersion: is missing\n  f.yml:1: kind: is missing",
            id="no kind",
        ),
        pytest.param(
            "- a",
            "f.yml:1: a manifest is a mapping with apiVersion and kind, not a list",
            id="list",
        ),
        pytest.param(
            "apiVersion: apps/v1\nkind: StatefulSet\n",
            'f.yml:2: kind "StatefulSet" (apiVersion "apps/v1") is not supported. Use a Deployment with a named volume '
            "(csi, driver volumes.korch.dev).",
            id="StatefulSet",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Deployment\n",
            'f.yml:2: kind Deployment has apiVersion "apps/v1", not "v1".',
            id="apiVersion",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}",
            "f.yml:2: a Node is not given in a manifest: nodes come from the inventory",
            id="Node",
        ),
        pytest.param(
            DEPLOYMENT + "---\n" + DEPLOYMENT,
            'f.yml:16: Deployment "web" stands in f.yml:1 already',
            id="twice",
        ),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(InvalidError) as caught:
        load_manifests(text, "f.yml")
    assert str(caught.value) == message


def test_all_mistakes_are_told_at_once():
    other = "---\nkind: Stateful\napiVersion: apps/v1\n"
    text = in_spec("hostNetwork: true").replace("replicas: 3", "replicas: x") + other
    with pytest.raises(InvalidError) as caught:
        load_manifests(text, "f.yml")
    assert [line.split(": ")[0].strip() for line in str(caught.value).splitlines()] == [
        "f.yml",
        "f.yml:6",
        "f.yml:11",
        "f.yml:17",
    ]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param(
            in_spec("dnsPolicy: None"),
            'f.yml:11: Deployment "web": spec.template.spec.dnsPolicy: containers use the DNS that '
            "the node's engine gives them",
            id="dnsPolicy",
        ),
        pytest.param(
            in_spec("serviceAccountName: robot"),
            'f.yml:11: Deployment "web": spec.template.spec.serviceAccountName: pods of korch have no API token',
            id="serviceAccountName",
        ),
        pytest.param(
            in_container("terminationMessagePath: /tmp/why"),
            'f.yml:15: Deployment "web": spec.template.spec.containers[0].terminationMessagePath: the last '
            "log lines are the message",
            id="terminationMessagePath",
        ),
        pytest.param(
            edited("name: web\nspec", "name: web\n  uid: x\nspec"),
            'f.yml:5: Deployment "web": metadata.uid: the cluster sets it; what a manifest says is ignored',
            id="uid",
        ),
        pytest.param(
            DEPLOYMENT + "status: {replicas: 4}\n",
            'f.yml:15: Deployment "web": status: korch reports the status; what a manifest says is ignored',
            id="status",
        ),
    ],
)
def test_warnings(text, warning):
    loaded = load_manifests(text, "f.yml")
    assert loaded.warnings == (warning,)
    ((obj, _),) = loaded.objects
    assert obj.metadata.uid == ""
    assert obj.status.replicas == 0


def test_the_account_that_every_namespace_has_is_no_news():
    for name in ("serviceAccountName", "serviceAccount"):
        assert load_manifests(in_spec(f"{name}: default"), "f.yml").warnings == ()


def test_a_field_with_a_warning_that_korch_keeps_is_kept():
    ((obj, _),) = load_manifests(in_container("terminationMessagePath: /tmp/why"), "f.yml").objects
    assert obj.spec.template.spec.containers[0].termination_message_path == "/tmp/why"


@pytest.mark.parametrize(
    "line",
    [
        "hostNetwork: false",
        "initContainers: []",
        "dnsPolicy: ClusterFirst",
        "schedulerName: default-scheduler",
        "priority: 0",
        "affinity: {}",
        "securityContext: {seccompProfile: {type: RuntimeDefault}}",
        "nodeSelector:",
        "hostUsers: true",
        "os: {name: linux}",
    ],
)
def test_what_says_nothing_passes_in_silence(line):
    assert load_manifests(in_spec(line), "f.yml").warnings == ()


def test_a_pod_to_be_named_by_the_cluster():
    text = "apiVersion: v1\nkind: Pod\nmetadata: {generateName: web-}\nspec: {containers: [{name: a, image: a}]}"
    ((obj, _),) = load_manifests(text, "f.yml").objects
    assert obj.metadata.generate_name == "web-"


def test_yaml_anchors_share_a_template():
    text = DEPLOYMENT.replace("spec:\n  replicas", "spec: &s\n  replicas") + (
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\nspec: *s\n"
    )
    with pytest.raises(InvalidError, match="the alias"):  # anchors end with their document, as YAML says
        load_manifests(text, "f.yml")
