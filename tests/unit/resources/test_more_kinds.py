"""The kinds beside the workloads: what Kubernetes' manifests say is read whole, defaulted, judged, and told about."""

import pytest
import yaml
from msgspec.structs import replace

from korch.errors import InvalidError
from korch.resources.autoscaling import from_v1, to_v1
from korch.resources.batch import Job
from korch.resources.codec import from_dict, to_dict, with_meta
from korch.resources.config import ConfigMap
from korch.resources.defaults import with_defaults
from korch.resources.kinds import AUTOSCALER, kind_named
from korch.resources.manifests import load_manifests
from korch.resources.notices import kind_notice
from korch.resources.validation import problems_of, validate_update

MANIFESTS = {
    "ConfigMap": """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a.conf: "x=1"}
binaryData: {blob: AAE=}
immutable: true
""",
    "Job": """
apiVersion: batch/v1
kind: Job
metadata: {name: pi}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  backoffLimit: 4
  activeDeadlineSeconds: 100
  ttlSecondsAfterFinished: 60
  template:
    spec:
      restartPolicy: Never
      containers: [{name: pi, image: "perl:5", command: [perl]}]
""",
    "CronJob": """
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "30 2 * * 1-5"
  timeZone: Europe/Berlin
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: OnFailure, containers: [{name: a, image: "busybox:1"}]}
""",
    "EndpointSlice": """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.9], conditions: {ready: true}, nodeName: n1}]
ports: [{name: sql, port: 5432}]
""",
    "HorizontalPodAutoscaler": """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 64Mi}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Pods, value: 1, periodSeconds: 30}]}}
""",
    "CustomResourceDefinition": """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object}}}}
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Spec, type: string, jsonPath: .spec.cron}]
""",
    "Role": """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: "system:reader"}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
""",
    "RoleBinding": """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: read}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: User, name: jane}, {kind: ServiceAccount, name: ci, namespace: default}]
""",
}
KEPT = {
    "Ingress": """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: nginx
  rules:
  - host: web.lab
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
""",
    "NetworkPolicy": """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 5432, protocol: TCP}]}]
""",
    "ResourceQuota": """
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {pods: "4", requests.cpu: 2}}
""",
    "PriorityClass": """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 0
""",
    "Service": """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: admin, port: 81, targetPort: 8081}]
""",
}


def within(small, large) -> bool:
    if isinstance(small, dict):
        return isinstance(large, dict) and all(key in large and within(small[key], large[key]) for key in small)
    if isinstance(small, list):
        return (
            isinstance(large, list)
            and len(small) == len(large)
            and all(within(a, b) for a, b in zip(small, large, strict=True))
        )
    return small == large


@pytest.mark.parametrize("name", [*MANIFESTS, *KEPT])
def test_nothing_that_a_manifest_says_is_lost(name):
    text = {**MANIFESTS, **KEPT}[name]
    loaded = load_manifests(text, "f.yml")
    (obj, _), data = loaded.objects[0], yaml.safe_load(text)
    ready = with_defaults(obj)
    assert problems_of(ready) == []
    assert with_defaults(ready) == ready
    assert within(data, to_dict(ready))
    assert bool(loaded.warnings) == (name in KEPT)


@pytest.mark.parametrize(
    ("name", "old", "new", "path"),
    [
        ("ConfigMap", "blob: AAE=", "blob: '?'", "binaryData.blob"),
        ("ConfigMap", "blob: AAE=", "a.conf: AAE=", "binaryData.a.conf"),
        ("Job", "restartPolicy: Never", "restartPolicy: Always", "spec.template.spec.restartPolicy"),
        ("Job", "  completions: 3\n", "", "spec.completions"),
        ("Job", "backoffLimit: 4", "podFailurePolicy: {rules: [{}]}", "spec.podFailurePolicy"),
        ("CronJob", "30 2 * * 1-5", "61 2 * * 1-5", "spec.schedule"),
        ("CronJob", "30 2 * * 1-5", "* * * *", "spec.schedule"),
        ("CronJob", "Europe/Berlin", "Mars/Base", "spec.timeZone"),
        ("CronJob", "Europe/Berlin", "../../etc/passwd", "spec.timeZone"),
        ("EndpointSlice", "10.0.0.9", "fe80::1", "endpoints[0].addresses"),
        ("HorizontalPodAutoscaler", "kind: Deployment", "kind: DaemonSet", "spec.scaleTargetRef.kind"),
        ("HorizontalPodAutoscaler", "maxReplicas: 5", "maxReplicas: 5\n  minReplicas: 6", "spec.maxReplicas"),
        ("CustomResourceDefinition", "crontabs.example.com", "other.example.com", "metadata.name"),
        ("CustomResourceDefinition", "storage: true", "storage: false", "spec.versions"),
        ("Service", "selector:", "clusterIP: 10.1.1.1\n  selector:", "spec.clusterIP"),
        ("Service", "{name: http, port: 80", "{port: 80", "spec.ports[0].name"),
        ("Service", "metadata: {name: web}", "metadata: {name: 1web}", "metadata.name"),
        ("Role", "system:reader", "a/b", "metadata.name"),
        ("Ingress", "pathType: Prefix", "pathType: Any", "spec.rules[0].http.paths[0].pathType"),
    ],
)
def test_mistakes_are_told_with_their_path(name, old, new, path):
    text = {**MANIFESTS, **KEPT}[name]
    assert old in text
    with pytest.raises(InvalidError, match=r"f\.yml:\d+: ") as caught:
        load_manifests(text.replace(old, new), "f.yml")
    assert f"{path}: " in str(caught.value)


def test_a_service_gets_what_clients_look_at():
    obj, _ = load_manifests(KEPT["Service"], "f.yml").objects[0]
    spec = to_dict(with_defaults(obj))["spec"]
    assert (spec["type"], spec["clusterIP"], spec["clusterIPs"]) == ("ClusterIP", "None", ["None"])
    assert [port["targetPort"] for port in spec["ports"]] == ["http", 8081]
    assert {port["protocol"] for port in spec["ports"]} == {"TCP"}


def test_a_job_with_a_uid_selects_its_own_pods():
    obj, _ = load_manifests(MANIFESTS["Job"], "f.yml").objects[0]
    job = with_defaults(with_meta(obj, uid="u1"))
    assert isinstance(job, Job)
    assert job.spec.selector is not None
    assert job.spec.selector.match_labels.items() <= job.spec.template.metadata.labels.items()
    assert job.spec.template.metadata.labels["job-name"] == "pi"
    validate_update(replace(job, spec=replace(job.spec, parallelism=5)), job)
    with pytest.raises(InvalidError, match=r"spec\.completions: cannot change"):
        validate_update(replace(job, spec=replace(job.spec, completions=5)), job)


@pytest.mark.parametrize(
    ("completions", "parallelism", "wanted"),
    [(None, None, (1, 1)), (None, 3, (None, 3)), (4, None, (4, 1)), (0, 0, (0, 0))],
)
def test_how_many_completions_a_job_has(completions, parallelism, wanted):
    job = Job()
    job = with_defaults(replace(job, spec=replace(job.spec, completions=completions, parallelism=parallelism)))
    assert (job.spec.completions, job.spec.parallelism) == wanted


def test_what_is_immutable_stays_so():
    old = with_defaults(ConfigMap(data={"a": "1"}, immutable=True))
    with pytest.raises(InvalidError, match="immutable: cannot change"):
        validate_update(replace(old, immutable=False), old)
    with pytest.raises(InvalidError, match="data: cannot change"):
        validate_update(replace(old, data={"a": "2"}), old)


def test_an_immutable_config_map_keeps_its_data_and_takes_labels():
    old = with_defaults(ConfigMap(data={"a": "1"}, immutable=True))
    validate_update(with_meta(old, labels={"x": "y"}), old)
    with pytest.raises(InvalidError, match="immutable"):
        validate_update(replace(old, data={"a": "2"}), old)


def test_notices_of_kinds():
    service = kind_named("svc")
    assert "create token" in kind_notice(kind_named("secret"), {"type": "kubernetes.io/service-account-token"})
    assert kind_notice(kind_named("secret"), {"type": "Opaque"}) == ""
    assert kind_notice(kind_named("ingress"), {}).startswith("an Ingress is kept")
    assert "no virtual address" in kind_notice(service, {})
    assert "NodePort" in kind_notice(service, {"spec": {"type": "NodePort"}})
    assert kind_notice(service, {"spec": {"clusterIP": "None"}}) == ""
    assert kind_notice(service, {"spec": 5})


def test_an_autoscaler_of_version_1_and_back():
    old = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 3,
            "minReplicas": 1,
            "targetCPUUtilizationPercentage": 50,
        },
    }
    new = from_v1(old)
    assert problems_of(with_defaults(from_dict(AUTOSCALER, new))) == []
    assert to_v1(new) == old
    bare = from_v1({**old, "spec": {**old["spec"], "targetCPUUtilizationPercentage": None}})
    spec = to_dict(with_defaults(from_dict(AUTOSCALER, bare)))["spec"]
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
