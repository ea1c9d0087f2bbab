import base64

import pytest
from msgspec.structs import replace

from korch.errors import InvalidError
from korch.resources.codec import from_dict
from korch.resources.defaults import with_defaults
from korch.resources.kinds import kind_for
from korch.resources.meta import ObjectMeta, OwnerReference
from korch.resources.misc import Namespace, Secret
from korch.resources.names import dns_label_problem, env_name_problem, image_problem, path_problem, port_name_problem
from korch.resources.node import Node, NodeSpec, Taint
from korch.resources.validation import problems_of, validate

C = "spec.template.spec.containers[0]"
P = "spec.template.spec"


def make(*, spec=None, pod=None, meta=None, **container):
    """A legal Deployment with changes at each level."""
    data = {
        "metadata": {"name": "web", **(meta or {})},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1", **container}], **(pod or {})},
            },
            **(spec or {}),
        },
    }
    return from_dict(kind_for("apps/v1", "Deployment"), data)


def problems(obj) -> list[str]:
    return [str(problem) for problem in problems_of(with_defaults(obj))]


def port(number=80, **more):
    return {"containerPort": number, **more}


LEGAL = {
    "minimal": {},
    "ports": {"ports": [port(name="http"), port(53), port(53, protocol="UDP", hostPort=53)]},
    "one port on two node ports": {"ports": [port(hostPort=80), port(hostPort=81)]},
    "one node port, two protocols": {"ports": [port(hostPort=80), port(hostPort=80, protocol="UDP")]},
    "named probe port": {"ports": [port(name="http")], "readinessProbe": {"httpGet": {"port": "http"}}},
    "limits": {"resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "999m"}}},
    "hostile values": {"env": [{"name": "A", "value": "$(x) `y` ;'\"\n ü"}], "args": ["$(x)", "a b", ""]},
    "empty dir in memory": {
        "pod": {"volumes": [{"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]},
        "volumeMounts": [{"name": "a", "mountPath": "/a"}],
    },
    "named volume": {
        "pod": {"volumes": [{"name": "a", "csi": {"driver": "volumes.korch.dev", "volumeAttributes": {"name": "A_1"}}}]}
    },
    "percentages": {"spec": {"strategy": {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}}},
    "several containers": {
        "pod": {
            "initContainers": [
                {"name": "first", "image": "a"},
                {
                    "name": "beside",
                    "image": "a",
                    "restartPolicy": "Always",
                    "startupProbe": {"tcpSocket": {"port": 1}},
                    "ports": [port(hostPort=1)],
                },
            ],
            "containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}],
            "volumes": [{"name": "m", "emptyDir": {}}],
        }
    },
    "recreate": {"spec": {"strategy": {"type": "Recreate"}}},
    "paused": {"spec": {"replicas": 0, "paused": True}},
    "toleration of all": {"pod": {"tolerations": [{"operator": "Exists"}]}},
    "digest": {"image": f"a.b:5000/c/d_e:v1@sha256:{'0' * 64}"},
}

ILLEGAL = {
    "replicas": ({"spec": {"replicas": -1}}, "spec.replicas: -1 is less than 0"),
    "replicas too many": ({"spec": {"replicas": 2**31}}, f"spec.replicas: {2**31} is too large"),
    "label": ({"meta": {"labels": {"a b": "x"}}}, 'metadata.labels: "a b" is not a label key'),
    "label's value": ({"meta": {"labels": {"a": "x y"}}}, 'metadata.labels: "x y" is not a label value'),
    "annotation": ({"meta": {"annotations": {"a b": "x"}}}, 'metadata.annotations: "a b" is not a label key'),
    "annotations' size": ({"meta": {"annotations": {"a": "x" * 300_000}}}, "metadata.annotations: 300001 bytes"),
    "finalizer": ({"meta": {"finalizers": ["a b"]}}, 'metadata.finalizers: "a b"'),
    "namespace": ({"meta": {"namespace": "A"}}, 'metadata.namespace: "A" is not a DNS label'),
    "strategy": ({"spec": {"strategy": {"type": "Blue"}}}, 'spec.strategy.type: "Blue" is not'),
    "surge": ({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "x"}}}}, 'maxSurge: "x" is neither a number'),
    "surge and gap": (
        {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}},
        "spec.strategy.rollingUpdate: maxSurge and maxUnavailable cannot both be 0",
    ),
    "gap": ({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}}, "maxUnavailable: 101% is more"),
    "recreate": (
        {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {}}}},
        "spec.strategy.rollingUpdate: has no meaning with type Recreate",
    ),
    "deadline": (
        {"spec": {"minReadySeconds": 10, "progressDeadlineSeconds": 10}},
        "spec.progressDeadlineSeconds: 10 must be more than minReadySeconds (10)",
    ),
    "selector": ({"spec": {"selector": {"matchLabels": {"a": "b"}}}}, "spec.selector: does not match"),
    "no containers": ({"pod": {"containers": []}}, f"{P}.containers: 0 containers; one is needed"),
    "name of two containers": (
        {"pod": {"containers": [{"name": "a", "image": "a"}, {"name": "a", "image": "b"}]}},
        f'{P}.containers[1].name: "a" is the name of another container',
    ),
    "name of an init container": (
        {"pod": {"initContainers": [{"name": "web", "image": "a"}]}},
        f'{P}.containers[0].name: "web" is the name of another container',
    ),
    "restart policy of a container": ({"restartPolicy": "Always"}, f"{C}.restartPolicy: is for init containers"),
    "restart policy of an init container": (
        {"pod": {"initContainers": [{"name": "a", "image": "a", "restartPolicy": "Never"}]}},
        f'{P}.initContainers[0].restartPolicy: "Never" is not Always',
    ),
    "probe of an init container": (
        {"pod": {"initContainers": [{"name": "a", "image": "a", "livenessProbe": {"tcpSocket": {"port": 1}}}]}},
        f"{P}.initContainers[0].livenessProbe: is not for init containers",
    ),
    "node port of an init container": (
        {"pod": {"initContainers": [{"name": "a", "image": "a", "ports": [{"containerPort": 1, "hostPort": 1}]}]}},
        f"{P}.initContainers[0].ports: hostPort is not for init containers",
    ),
    "image of an init container": (
        {"pod": {"initContainers": [{"name": "a", "image": "a b"}]}},
        f'{P}.initContainers[0].image: "a b" is not an image',
    ),
    "one node port for two": (
        {
            "pod": {
                "containers": [{"name": n, "image": n, "ports": [{"containerPort": 1, "hostPort": 80}]} for n in "ab"]
            }
        },
        f"{P}.containers: hostPort *:80/TCP is given 2 times",
    ),
    "memory for two": (
        {
            "pod": {
                "containers": [
                    {"name": n, "image": n, "volumeMounts": [{"name": "m", "mountPath": "/m"}]} for n in ("a", "b")
                ],
                "volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}],
            }
        },
        f"{P}.volumes[0].emptyDir.medium: Memory is for one container",
    ),
    "too many shared volumes": (
        {
            "pod": {
                "initContainers": [{"name": "a", "image": "a"}],
                "volumes": [{"name": f"v{number}", "emptyDir": {}} for number in range(33)],
            }
        },
        f"{P}.volumes: 33 emptyDir volumes; containers can share 32",
    ),
    "hook after the start": (
        {"lifecycle": {"postStart": {"sleep": {"seconds": 999}}}},
        f"{C}.lifecycle.postStart.sleep.seconds: 999 is not between 0 and the longest time (120)",
    ),
    "restart policy": ({"pod": {"restartPolicy": "Never"}}, f'{P}.restartPolicy: "Never" is for single pods'),
    "node": ({"pod": {"nodeName": "n1"}}, f"{P}.nodeName: all replicas would be on one node"),
    "grace": ({"pod": {"terminationGracePeriodSeconds": -1}}, f"{P}.terminationGracePeriodSeconds: -1 is less"),
    "hostname": ({"pod": {"hostname": "a.b"}}, f'{P}.hostname: "a.b" is not a DNS label'),
    "pull secret": ({"pod": {"imagePullSecrets": [{}]}}, f'{P}.imagePullSecrets[0].name: "" is not a DNS name'),
    "group alone": ({"pod": {"securityContext": {"runAsGroup": 5}}}, f"{P}.securityContext.runAsGroup: needs"),
    "user": ({"securityContext": {"runAsUser": -1}}, f"{C}.securityContext.runAsUser: -1 is not a user"),
    "capability": (
        {"securityContext": {"capabilities": {"add": ["net-admin"]}}},
        f'{C}.securityContext.capabilities: "net-admin" is not a capability',
    ),
    "image": ({"image": "a b"}, f'{C}.image: "a b" is not an image'),
    "no image": ({"image": ""}, f"{C}.image: an image is needed"),
    "container's name": ({"name": "A"}, f'{C}.name: "A" is not a DNS label'),
    "pull policy": ({"imagePullPolicy": "Often"}, f'{C}.imagePullPolicy: "Often" is not one of'),
    "working dir": ({"workingDir": "a"}, f'{C}.workingDir: "a" is not an absolute path'),
    "NUL": ({"args": ["a\0"]}, f"{C}.args[0]: a NUL character"),
    "variable": ({"env": [{"name": "A B"}]}, f'{C}.env[0].name: "A B" is not a name'),
    "variable twice": ({"env": [{"name": "A"}, {"name": "A"}]}, f'{C}.env: variable "A" is given 2 times'),
    "value and source": (
        {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        f"{C}.env[0]: value and valueFrom exclude each other",
    ),
    "no source": ({"env": [{"name": "A", "valueFrom": {}}]}, f"{C}.env[0].valueFrom: exactly one of"),
    "field": (
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
        f'{C}.env[0].valueFrom.fieldRef.fieldPath: "status.podIP" is not one of',
    ),
    "secret key": (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b"}}}]},
        f'{C}.env[0].valueFrom.secretKeyRef.key: "a/b" is not a key',
    ),
    "env from nothing": ({"envFrom": [{}]}, f"{C}.envFrom[0]: exactly one of secretRef and configMapRef"),
    "port": ({"ports": [port(0)]}, f"{C}.ports[0].containerPort: 0 is not a port"),
    "node port": ({"ports": [port(hostPort=70000)]}, f"{C}.ports[0].hostPort: 70000 is not a port"),
    "protocol": ({"ports": [port(protocol="SCTP")]}, f'{C}.ports[0].protocol: "SCTP" is not TCP or UDP'),
    "address": ({"ports": [port(hostIP="host")]}, f'{C}.ports[0].hostIP: "host" is not an IP address'),
    "port's name": ({"ports": [port(name="1")]}, f'{C}.ports[0].name: "1" is not a port name'),
    "port's name twice": ({"ports": [port(name="a"), port(81, name="a")]}, f'{C}.ports: port name "a" is given 2'),
    "port twice": ({"ports": [port(), port(name="x")]}, f"{C}.ports: port 80/TCP on no node port is given 2 times"),
    "node port twice": (
        {"ports": [port(hostPort=8080), port(81, hostPort=8080)]},
        f"{C}.ports: node port 8080/TCP is given 2 times",
    ),
    "quantity": ({"resources": {"requests": {"cpu": "1x"}}}, f'{C}.resources.requests.cpu: "1x" is not a quantity'),
    "negative": ({"resources": {"limits": {"memory": -1}}}, f'{C}.resources.limits.memory: memory "-1" is negative'),
    "resource": (
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        f"{C}.resources.limits.nvidia.com/gpu: is refused",
    ),
    "request over limit": (
        {"resources": {"requests": {"cpu": "1.1"}, "limits": {"cpu": 1}}},
        f"{C}.resources.requests.cpu: 1.1 is more than the limit 1",
    ),
    "tiny memory": ({"resources": {"limits": {"memory": "1Mi"}}}, f"{C}.resources.limits.memory: 1Mi is less"),
    "tiny cpu": ({"resources": {"limits": {"cpu": "1m"}}}, f"{C}.resources.limits.cpu: 1m is less"),
    "two actions": (
        {"readinessProbe": {"tcpSocket": {"port": 1}, "exec": {"command": ["a"]}}},
        f"{C}.readinessProbe: exactly one of",
    ),
    "no action": ({"readinessProbe": {}}, f"{C}.readinessProbe: exactly one of"),
    "no command": ({"readinessProbe": {"exec": {}}}, f"{C}.readinessProbe.exec.command: a command is needed"),
    "probe's port": (
        {"readinessProbe": {"httpGet": {"port": "web"}}},
        f'{C}.readinessProbe.httpGet.port: no port of the container is called "web"',
    ),
    "probe's port as text": (
        {"readinessProbe": {"tcpSocket": {"port": "80"}}},
        f'{C}.readinessProbe.tcpSocket.port: no port of the container is called "80"; write it without quotes',
    ),
    "probe's path": (
        {"readinessProbe": {"httpGet": {"port": 80, "path": "/a b"}}},
        f'{C}.readinessProbe.httpGet.path: "/a b" is not a path',
    ),
    "probe's scheme": (
        {"readinessProbe": {"httpGet": {"port": 80, "scheme": "https"}}},
        f'{C}.readinessProbe.httpGet.scheme: "https" is not HTTP or HTTPS',
    ),
    "probe's header": (
        {"readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "A", "value": "b\nC: d"}]}}},
        f'{C}.readinessProbe.httpGet.httpHeaders: "A" is not a header',
    ),
    "probe's host": (
        {"readinessProbe": {"tcpSocket": {"port": 80, "host": "a b"}}},
        f'{C}.readinessProbe.tcpSocket.host: "a b" is not a host name or address',
    ),
    "probe's grace": (
        {"livenessProbe": {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 0}},
        f"{C}.livenessProbe.terminationGracePeriodSeconds: 0 is less than 1",
    ),
    "grace of a readiness probe": (
        {"readinessProbe": {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5}},
        f"{C}.readinessProbe.terminationGracePeriodSeconds: a readiness probe ends nothing",
    ),
    "probe's time": (
        {"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": -1}},
        f"{C}.readinessProbe.periodSeconds: -1 is less than 1",
    ),
    "liveness": (
        {"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}},
        f"{C}.livenessProbe.successThreshold: must be 1 here",
    ),
    "hook": (
        {"lifecycle": {"preStop": {}}},
        f"{C}.lifecycle.preStop: exactly one of exec, httpGet and sleep is needed",
    ),
    "hook's command": (
        {"lifecycle": {"preStop": {"exec": {"command": []}}}},
        f"{C}.lifecycle.preStop.exec.command: a command is needed",
    ),
    "hook's sleep": (
        {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
        f"{C}.lifecycle.preStop.sleep.seconds: 31 is not between 0 and terminationGracePeriodSeconds (30)",
    ),
    "hook's port": (
        {"lifecycle": {"preStop": {"httpGet": {"port": "x", "path": "/a"}}}},
        f'{C}.lifecycle.preStop.httpGet.port: no port of the container is called "x"',
    ),
    "mount": (
        {"volumeMounts": [{"name": "a", "mountPath": "/a"}]},
        f'{C}.volumeMounts[0].name: there is no volume "a"',
    ),
    "files named upwards": (
        {"pod": {"volumes": [{"name": "a", "secret": {"secretName": "s", "items": [{"key": "k", "path": "../x"}]}}]}},
        f"{P}.volumes[0].secret.items[0].path",
    ),
    "file mode": (
        {"pod": {"volumes": [{"name": "a", "configMap": {"name": "s", "defaultMode": 1000}}]}},
        f"{P}.volumes[0].configMap.defaultMode: 1000",
    ),
    "a part of a volume of the engine": (
        {
            "pod": {"volumes": [{"name": "a", "emptyDir": {}}]},
            "volumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "b"}],
        },
        f"{C}.volumeMounts[0].subPath: is refused",
    ),
    "volume": ({"pod": {"volumes": [{"name": "a"}]}}, f"{P}.volumes[0]: exactly one of configMap, secret, downwardAPI"),
    "volume twice": (
        {"pod": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}},
        f'{P}.volumes: volume "a" is given 2 times',
    ),
    "host path": (
        {"pod": {"volumes": [{"name": "a", "hostPath": {"path": "/a/../b"}}]}},
        f'{P}.volumes[0].hostPath.path: "/a/../b" leads upwards',
    ),
    "host path's type": (
        {"pod": {"volumes": [{"name": "a", "hostPath": {"path": "/a", "type": "BlockDevice"}}]}},
        f'{P}.volumes[0].hostPath.type: "BlockDevice" is not one of',
    ),
    "size": (
        {"pod": {"volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}]}},
        f"{P}.volumes[0].emptyDir.sizeLimit: engines limit only volumes in memory",
    ),
    "driver": (
        {"pod": {"volumes": [{"name": "a", "csi": {"driver": "x"}}]}},
        f'{P}.volumes[0].csi.driver: "x" is not known',
    ),
    "volume's name": (
        {"pod": {"volumes": [{"name": "a", "csi": {"driver": "volumes.korch.dev"}}]}},
        f'{P}.volumes[0].csi.volumeAttributes.name: "" is not a name',
    ),
    "scratch in two places": (
        {
            "pod": {"volumes": [{"name": "a", "emptyDir": {}}]},
            "volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}],
        },
        f'{C}.volumeMounts: emptyDir "a" is given 2 times',
    ),
    "node selector": ({"pod": {"nodeSelector": {"a": "b c"}}}, f'{P}.nodeSelector: "b c" is not a label value'),
    "toleration": (
        {"pod": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        f"{P}.tolerations[0]: Exists takes no value",
    ),
    "effect": (
        {"pod": {"tolerations": [{"key": "a", "effect": "Never"}]}},
        f'{P}.tolerations[0]: effect "Never" is not one of',
    ),
    "spread": (
        {
            "pod": {
                "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]
            }
        },
        f"{P}.topologySpreadConstraints[0].maxSkew: 0 is less than 1",
    ),
    "weight": (
        {
            "pod": {
                "affinity": {
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}]
                    }
                }
            }
        },
        "weight: 101 is not between 1 and 100",
    ),
    "published port": (
        {
            "spec": {
                "template": {"metadata": {"annotations": {"korch.dev/publish": "80/tcp"}, "labels": {"app": "web"}}}
            }
        },
        "spec.template.metadata.annotations.korch.dev/publish: no container has port 80/TCP",
    ),
}


@pytest.mark.parametrize("changes", LEGAL.values(), ids=LEGAL)
def test_legal(changes):
    assert problems(make(**changes)) == []


@pytest.mark.parametrize(("changes", "message"), ILLEGAL.values(), ids=ILLEGAL)
def test_illegal(changes, message):
    found = problems(make(**changes))
    assert any(message in problem for problem in found), found


def test_one_error_lists_every_problem():
    with pytest.raises(InvalidError) as caught:
        validate(with_defaults(make(image="a b", meta={"name": "Web"}, ports=[port(0)])))
    assert str(caught.value).splitlines() == [
        'Deployment "Web" is invalid:',
        '  metadata.name: "Web" is not a DNS label (a-z, 0-9 and "-", not at the ends; at most 63)',
        f'  {C}.image: "a b" is not an image, such as registry.lab/web:1.4',
        f"  {C}.ports[0].containerPort: 0 is not a port (1-65535)",
    ]


def test_two_controllers_of_one_object_are_refused():
    owner = OwnerReference(api_version="v1", kind="Pod", name="a", uid="1", controller=True)
    obj = make()
    meta = replace(obj.metadata, owner_references=(owner, owner))
    assert problems(replace(obj, metadata=meta)) == ["metadata.ownerReferences: only one owner can be the controller"]


def test_secrets_are_judged_without_showing_values():
    secret = Secret(metadata=ObjectMeta(name="s"), data={"a/b": "eA==", "c": "geheim!"})
    found = problems(secret)
    assert len(found) == 2
    assert "geheim" not in "".join(found)
    big = base64.b64encode(b"x" * 1_100_000).decode()
    assert "1100000 bytes" in problems(Secret(metadata=ObjectMeta(name="s"), data={"a": big}))[0]


@pytest.mark.parametrize(("text", "legal"), [('{"auths": {}}', True), ("nonsense", False), (None, False)])
def test_pull_credentials_hold_a_configuration(text, legal):
    data = {} if text is None else {".dockerconfigjson": text}
    secret = Secret(metadata=ObjectMeta(name="s"), type="kubernetes.io/dockerconfigjson", string_data=data)
    assert (problems(secret) == []) is legal


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        ("tls", {"tls.crt"}, ["data.tls.key: is needed in a Secret of type kubernetes.io/tls"]),
        ("tls", {"tls.crt", "tls.key", "ca.crt"}, []),
        ("ssh-auth", set(), ["data.ssh-privatekey: is needed in a Secret of type kubernetes.io/ssh-auth"]),
        ("dockercfg", {".dockercfg"}, []),
        ("basic-auth", {"password"}, []),
        (
            "basic-auth",
            {"token"},
            ["data: username or password is needed in a Secret of type kubernetes.io/basic-auth"],
        ),
        ("my-own", set(), []),
    ],
)
def test_a_secret_of_a_type_has_its_keys(kind, keys, said):
    """What they hold may be empty, as in Kubernetes: some controllers fill it in later."""
    made = Secret(metadata=ObjectMeta(name="s"), type=f"kubernetes.io/{kind}", string_data=dict.fromkeys(keys, ""))
    assert problems(made) == said


def test_taints_and_namespaces():
    node = Node(metadata=ObjectMeta(name="n1"), spec=NodeSpec(taints=(Taint(key="a", effect="Sometimes"),)))
    assert problems(node) == ['spec.taints[0].effect: "Sometimes" is not NoSchedule, PreferNoSchedule or NoExecute']
    assert problems(Namespace(metadata=ObjectMeta(name="a.b")))[0].startswith('metadata.name: "a.b" is not a DNS label')


HOSTILE = ["a b", "a;b", "$(x)", "`x`", "a\nb", "a'b", 'a"b', "-a", "a-", "ü", "../x", "a/b/../c ", "", "\0"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_carries_shell_text(text):
    assert dns_label_problem(text)
    assert env_name_problem(text)
    assert port_name_problem(text)
    assert image_problem(text)


@pytest.mark.parametrize(
    "image",
    [
        "web", "web:1", "library/web", "registry.lab/web:1.4", "localhost:5000/a/b_c/d--e:V1.0", "[::1]:5000/web",
        "10.0.0.1:5000/web@sha256:" + "a" * 64, "sha256:" + "a" * 64, "a" * 64, "REGISTRY.example/web",
    ],
)  # fmt: skip
def test_images(image):
    assert image_problem(image) == ""


def test_length_of_images():
    assert image_problem("x" * 255 + ":1") == image_problem("reg:5000/" + "x" * 246) == ""
    assert "longer than 255" in image_problem("x" * 256 + "@sha256:" + "a" * 64)


@pytest.mark.parametrize("image", ["Web", "web:", "web:a b", "web@sha256:12", "/web", "web/", "a//b", "web:-x", "a..b"])
def test_no_images(image):
    assert image_problem(image)


@pytest.mark.parametrize(
    ("path", "legal"), [("/", True), ("/a b", True), ("a", False), ("/a/../b", False), ("/a\nb", False)]
)
def test_paths(path, legal):
    assert (path_problem(path) == "") is legal
