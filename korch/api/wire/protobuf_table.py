"""Field numbers of the messages that clients send as protobuf: facts of Kubernetes' published .proto files.

One line a message: `name=NUMBER:TYPE`, where the type is text when none is given. `*`: set means set, even when it is
empty, 0 or false; other empty fields are as good as absent. `[T]`: repeated. `~`: the fields of T are the holder's own.
Types: int, bool, bytes (base64 in JSON), json (JSON inside), map (of text), map<T>, Time, MicroTime, Quantity,
IntOrString, or a message.
"""

from dataclasses import dataclass
from functools import lru_cache

_MESSAGES = """
ObjectMeta name=1 generateName=2 namespace=3 uid=5 resourceVersion=6 generation=7:int creationTimestamp=8:Time deletionTimestamp*=9:Time deletionGracePeriodSeconds*=10:int labels=11:map annotations=12:map ownerReferences=13:[OwnerReference] finalizers=14:[] managedFields=17:[ManagedFieldsEntry]
OwnerReference kind=1 name=3 uid=4 apiVersion=5 controller*=6:bool blockOwnerDeletion*=7:bool
ManagedFieldsEntry manager=1 operation=2 apiVersion=3 time*=4:Time fieldsType=6 fieldsV1*=7:json subresource=8
LabelSelector matchLabels=1:map matchExpressions=2:[LabelSelectorRequirement]
LabelSelectorRequirement key=1 operator=2 values=3:[]
LocalObjectReference name=1
TypedLocalObjectReference apiGroup*=1 kind=2 name=3
ObjectReference kind=1 namespace=2 name=3 uid=4 apiVersion=5 resourceVersion=6 fieldPath=7
DeleteOptions gracePeriodSeconds*=1:int preconditions*=2:Preconditions orphanDependents*=3:bool propagationPolicy*=4 dryRun=5:[]
Preconditions uid*=1 resourceVersion*=2

ConfigMap metadata=1:ObjectMeta data=2:map binaryData=3:map<bytes> immutable*=4:bool
Secret metadata=1:ObjectMeta data=2:map<bytes> type=3 stringData=4:map immutable*=5:bool
Namespace metadata=1:ObjectMeta spec=2:NamespaceSpec status=3:NamespaceStatus
NamespaceSpec finalizers=1:[]
NamespaceStatus phase=1
ServiceAccount metadata=1:ObjectMeta secrets=2:[ObjectReference] imagePullSecrets=3:[LocalObjectReference] automountServiceAccountToken*=4:bool
Service metadata=1:ObjectMeta spec=2:ServiceSpec
ServiceSpec ports=1:[ServicePort] selector=2:map clusterIP=3 type=4 externalIPs=5:[] sessionAffinity=7 loadBalancerIP=8 loadBalancerSourceRanges=9:[] externalName=10 externalTrafficPolicy=11 healthCheckNodePort=12:int publishNotReadyAddresses=13:bool sessionAffinityConfig*=14:SessionAffinityConfig ipFamilyPolicy*=17 clusterIPs=18:[] ipFamilies=19:[] allocateLoadBalancerNodePorts*=20:bool loadBalancerClass*=21 internalTrafficPolicy*=22 trafficDistribution*=23
ServicePort name=1 protocol=2 port=3:int targetPort=4:IntOrString nodePort=5:int appProtocol*=6
SessionAffinityConfig clientIP*=1:ClientIPConfig
ClientIPConfig timeoutSeconds*=1:int
Event metadata=1:ObjectMeta involvedObject=2:ObjectReference reason=3 message=4 source=5:EventSource firstTimestamp=6:Time lastTimestamp=7:Time count=8:int type=9 eventTime=10:MicroTime series*=11:EventSeries action=12 related*=13:ObjectReference reportingComponent=14 reportingInstance=15
EventSource component=1 host=2
EventSeries count=1:int lastObservedTime=2:MicroTime
ResourceQuota metadata=1:ObjectMeta spec=2:ResourceQuotaSpec
ResourceQuotaSpec hard=1:map<Quantity> scopes=2:[] scopeSelector*=3:ScopeSelector
ScopeSelector matchExpressions=1:[ScopedResourceSelectorRequirement]
ScopedResourceSelectorRequirement scopeName=1 operator=2 values=3:[]
Binding metadata=1:ObjectMeta target=2:ObjectReference
PersistentVolumeClaim metadata=1:ObjectMeta spec=2:PersistentVolumeClaimSpec
PersistentVolumeClaimSpec accessModes=1:[] resources=2:VolumeResourceRequirements volumeName=3 selector*=4:LabelSelector storageClassName*=5 volumeMode*=6 dataSource*=7:TypedLocalObjectReference
VolumeResourceRequirements limits=1:map<Quantity> requests=2:map<Quantity>

Pod metadata=1:ObjectMeta spec=2:PodSpec
PodTemplateSpec metadata=1:ObjectMeta spec=2:PodSpec
PodSpec volumes=1:[Volume] containers=2:[Container] restartPolicy=3 terminationGracePeriodSeconds*=4:int activeDeadlineSeconds*=5:int dnsPolicy=6 nodeSelector=7:map serviceAccountName=8 serviceAccount=9 nodeName=10 hostNetwork=11:bool hostPID=12:bool hostIPC=13:bool securityContext*=14:PodSecurityContext imagePullSecrets=15:[LocalObjectReference] hostname=16 subdomain=17 affinity*=18:Affinity schedulerName=19 initContainers=20:[Container] automountServiceAccountToken*=21:bool tolerations=22:[Toleration] hostAliases=23:[HostAlias] priorityClassName=24 priority*=25:int dnsConfig*=26:PodDNSConfig shareProcessNamespace*=27:bool readinessGates=28:[PodReadinessGate] runtimeClassName*=29 enableServiceLinks*=30:bool preemptionPolicy*=31 overhead=32:map<Quantity> topologySpreadConstraints=33:[TopologySpreadConstraint] ephemeralContainers=34:[EphemeralContainer] setHostnameAsFQDN*=35:bool os*=36:PodOS hostUsers*=37:bool schedulingGates=38:[PodSchedulingGate] resourceClaims=39:[PodResourceClaim] resources*=40:ResourceRequirements
PodOS name=1
PodReadinessGate conditionType=1
PodSchedulingGate name=1
PodResourceClaim name=1 resourceClaimName*=3 resourceClaimTemplateName*=4
HostAlias ip=1 hostnames=2:[]
PodDNSConfig nameservers=1:[] searches=2:[] options=3:[PodDNSConfigOption]
PodDNSConfigOption name=1 value*=2
EphemeralContainer ~=1:Container targetContainerName=2
Container name=1 image=2 command=3:[] args=4:[] workingDir=5 ports=6:[ContainerPort] env=7:[EnvVar] resources=8:ResourceRequirements volumeMounts=9:[VolumeMount] livenessProbe*=10:Probe readinessProbe*=11:Probe lifecycle*=12:Lifecycle terminationMessagePath=13 imagePullPolicy=14 securityContext*=15:SecurityContext stdin=16:bool stdinOnce=17:bool tty=18:bool envFrom=19:[EnvFromSource] terminationMessagePolicy=20 volumeDevices=21:[VolumeDevice] startupProbe*=22:Probe resizePolicy=23:[ContainerResizePolicy] restartPolicy*=24
ContainerPort name=1 hostPort=2:int containerPort=3:int protocol=4 hostIP=5
ContainerResizePolicy resourceName=1 restartPolicy=2
EnvVar name=1 value=2 valueFrom*=3:EnvVarSource
EnvVarSource fieldRef*=1:ObjectFieldSelector resourceFieldRef*=2:ResourceFieldSelector configMapKeyRef*=3:KeySelector secretKeyRef*=4:KeySelector
ObjectFieldSelector apiVersion=1 fieldPath=2
ResourceFieldSelector containerName=1 resource=2 divisor=3:Quantity
KeySelector ~=1:LocalObjectReference key=2 optional*=3:bool
EnvFromSource prefix=1 configMapRef*=2:EnvSource secretRef*=3:EnvSource
EnvSource ~=1:LocalObjectReference optional*=2:bool
ResourceRequirements limits=1:map<Quantity> requests=2:map<Quantity> claims=3:[ResourceClaim]
ResourceClaim name=1 request=2
VolumeMount name=1 readOnly=2:bool mountPath=3 subPath=4 mountPropagation*=5 subPathExpr=6 recursiveReadOnly*=7
VolumeDevice name=1 devicePath=2
Probe ~=1:Handler initialDelaySeconds=2:int timeoutSeconds=3:int periodSeconds=4:int successThreshold=5:int failureThreshold=6:int terminationGracePeriodSeconds*=7:int
Handler exec*=1:ExecAction httpGet*=2:HTTPGetAction tcpSocket*=3:TCPSocketAction grpc*=4:GRPCAction
Lifecycle postStart*=1:LifecycleHandler preStop*=2:LifecycleHandler stopSignal*=3
LifecycleHandler exec*=1:ExecAction httpGet*=2:HTTPGetAction tcpSocket*=3:TCPSocketAction sleep*=4:SleepAction
ExecAction command=1:[]
HTTPGetAction path=1 port=2:IntOrString host=3 scheme=4 httpHeaders=5:[HTTPHeader]
HTTPHeader name=1 value=2
TCPSocketAction port=1:IntOrString host=2
GRPCAction port=1:int service*=2
SleepAction seconds=1:int
SecurityContext capabilities*=1:Capabilities privileged*=2:bool seLinuxOptions*=3:SELinuxOptions runAsUser*=4:int runAsNonRoot*=5:bool readOnlyRootFilesystem*=6:bool allowPrivilegeEscalation*=7:bool runAsGroup*=8:int procMount*=9 seccompProfile*=11:Profile appArmorProfile*=12:Profile
PodSecurityContext seLinuxOptions*=1:SELinuxOptions runAsUser*=2:int runAsNonRoot*=3:bool supplementalGroups=4:[int] fsGroup*=5:int runAsGroup*=6:int sysctls=7:[Sysctl] fsGroupChangePolicy*=9 seccompProfile*=10:Profile appArmorProfile*=11:Profile supplementalGroupsPolicy*=12 seLinuxChangePolicy*=13
SELinuxOptions user=1 role=2 type=3 level=4
Sysctl name=1 value=2
Profile type=1 localhostProfile*=2
Capabilities add=1:[] drop=2:[]
Toleration key=1 operator=2 value=3 effect=4 tolerationSeconds*=5:int
Affinity nodeAffinity*=1:NodeAffinity podAffinity*=2:PodAffinity podAntiAffinity*=3:PodAffinity
NodeAffinity requiredDuringSchedulingIgnoredDuringExecution*=1:NodeSelector preferredDuringSchedulingIgnoredDuringExecution=2:[PreferredSchedulingTerm]
NodeSelector nodeSelectorTerms=1:[NodeSelectorTerm]
NodeSelectorTerm matchExpressions=1:[LabelSelectorRequirement] matchFields=2:[LabelSelectorRequirement]
PreferredSchedulingTerm weight=1:int preference=2:NodeSelectorTerm
PodAffinity requiredDuringSchedulingIgnoredDuringExecution=1:[PodAffinityTerm] preferredDuringSchedulingIgnoredDuringExecution=2:[WeightedPodAffinityTerm]
PodAffinityTerm labelSelector*=1:LabelSelector namespaces=2:[] topologyKey=3 namespaceSelector*=4:LabelSelector matchLabelKeys=5:[] mismatchLabelKeys=6:[]
WeightedPodAffinityTerm weight=1:int podAffinityTerm=2:PodAffinityTerm
TopologySpreadConstraint maxSkew=1:int topologyKey=2 whenUnsatisfiable=3 labelSelector*=4:LabelSelector minDomains*=5:int nodeAffinityPolicy*=6 nodeTaintsPolicy*=7 matchLabelKeys=8:[]
Volume name=1 ~=2:VolumeSource
VolumeSource hostPath*=1:HostPathVolumeSource emptyDir*=2:EmptyDirVolumeSource secret*=6:SecretVolumeSource nfs*=7:NFSVolumeSource persistentVolumeClaim*=10:ClaimVolumeSource downwardAPI*=16:DownwardAPIVolumeSource configMap*=19:ConfigMapVolumeSource projected*=26:ProjectedVolumeSource csi*=28:CSIVolumeSource
HostPathVolumeSource path=1 type*=2
EmptyDirVolumeSource medium=1 sizeLimit*=2:Quantity
SecretVolumeSource secretName=1 items=2:[KeyToPath] defaultMode*=3:int optional*=4:bool
ConfigMapVolumeSource ~=1:LocalObjectReference items=2:[KeyToPath] defaultMode*=3:int optional*=4:bool
KeyToPath key=1 path=2 mode*=3:int
NFSVolumeSource server=1 path=2 readOnly=3:bool
ClaimVolumeSource claimName=1 readOnly=2:bool
DownwardAPIVolumeSource items=1:[DownwardAPIVolumeFile] defaultMode*=2:int
DownwardAPIVolumeFile path=1 fieldRef*=2:ObjectFieldSelector resourceFieldRef*=3:ResourceFieldSelector mode*=4:int
ProjectedVolumeSource sources=1:[VolumeProjection] defaultMode*=2:int
VolumeProjection secret*=1:KeyProjection downwardAPI*=2:DownwardAPIProjection configMap*=3:KeyProjection serviceAccountToken*=4:TokenProjection
KeyProjection ~=1:LocalObjectReference items=2:[KeyToPath] optional*=4:bool
DownwardAPIProjection items=1:[DownwardAPIVolumeFile]
TokenProjection audience=1 expirationSeconds*=2:int path=3
CSIVolumeSource driver=1 readOnly*=2:bool fsType*=3 volumeAttributes=4:map nodePublishSecretRef*=5:LocalObjectReference

Deployment metadata=1:ObjectMeta spec=2:DeploymentSpec
DeploymentSpec replicas*=1:int selector*=2:LabelSelector template=3:PodTemplateSpec strategy=4:Strategy minReadySeconds=5:int revisionHistoryLimit*=6:int paused=7:bool progressDeadlineSeconds*=9:int
Strategy type=1 rollingUpdate*=2:RollingUpdate
RollingUpdate maxUnavailable*=1:IntOrString maxSurge*=2:IntOrString
ReplicaSet metadata=1:ObjectMeta spec=2:ReplicaSetSpec
ReplicaSetSpec replicas*=1:int selector*=2:LabelSelector template=3:PodTemplateSpec minReadySeconds=4:int
DaemonSet metadata=1:ObjectMeta spec=2:DaemonSetSpec
DaemonSetSpec selector*=1:LabelSelector template=2:PodTemplateSpec updateStrategy=3:Strategy minReadySeconds=4:int revisionHistoryLimit*=6:int
Job metadata=1:ObjectMeta spec=2:JobSpec
JobSpec parallelism*=1:int completions*=2:int activeDeadlineSeconds*=3:int selector*=4:LabelSelector manualSelector*=5:bool template=6:PodTemplateSpec backoffLimit*=7:int ttlSecondsAfterFinished*=8:int completionMode*=9 suspend*=10:bool
CronJob metadata=1:ObjectMeta spec=2:CronJobSpec
CronJobSpec schedule=1 startingDeadlineSeconds*=2:int concurrencyPolicy=3 suspend*=4:bool jobTemplate=5:JobTemplateSpec successfulJobsHistoryLimit*=6:int failedJobsHistoryLimit*=7:int timeZone*=8
JobTemplateSpec metadata=1:ObjectMeta spec=2:JobSpec

ScaleTarget kind=1 name=2 apiVersion=3
AutoscalerV1 metadata=1:ObjectMeta spec=2:AutoscalerSpecV1
AutoscalerSpecV1 scaleTargetRef=1:ScaleTarget minReplicas*=2:int maxReplicas=3:int targetCPUUtilizationPercentage*=4:int
AutoscalerV2 metadata=1:ObjectMeta spec=2:AutoscalerSpecV2
AutoscalerSpecV2 scaleTargetRef=1:ScaleTarget minReplicas*=2:int maxReplicas=3:int metrics=4:[MetricSpec] behavior*=5:Behavior
MetricSpec type=1 object*=2:ObjectMetric pods*=3:PodsMetric resource*=4:ResourceMetric
ObjectMetric describedObject=1:ScaleTarget target=2:MetricTarget metric=3:MetricName
PodsMetric metric=1:MetricName target=2:MetricTarget
MetricName name=1 selector*=2:LabelSelector
ResourceMetric name=1 target=2:MetricTarget
MetricTarget type=1 value*=2:Quantity averageValue*=3:Quantity averageUtilization*=4:int
Behavior scaleUp*=1:ScalingRules scaleDown*=2:ScalingRules
ScalingRules selectPolicy*=1 policies=2:[ScalingPolicy] stabilizationWindowSeconds*=3:int tolerance*=4:Quantity
ScalingPolicy type=1 value=2:int periodSeconds=3:int
Scale metadata=1:ObjectMeta spec=2:ScaleSpec
ScaleSpec replicas*=1:int

PodDisruptionBudget metadata=1:ObjectMeta spec=2:PodDisruptionBudgetSpec
PodDisruptionBudgetSpec minAvailable*=1:IntOrString selector*=2:LabelSelector maxUnavailable*=3:IntOrString unhealthyPodEvictionPolicy*=4
Eviction metadata=1:ObjectMeta deleteOptions*=2:DeleteOptions
Lease metadata=1:ObjectMeta spec=2:LeaseSpec
LeaseSpec holderIdentity*=1 leaseDurationSeconds*=2:int acquireTime*=3:MicroTime renewTime*=4:MicroTime leaseTransitions*=5:int
PriorityClass metadata=1:ObjectMeta value=2:int globalDefault=3:bool description=4 preemptionPolicy*=5

Role metadata=1:ObjectMeta rules=2:[PolicyRule]
ClusterRole metadata=1:ObjectMeta rules=2:[PolicyRule] aggregationRule*=3:AggregationRule
AggregationRule clusterRoleSelectors=1:[LabelSelector]
PolicyRule verbs=1:[] apiGroups=2:[] resources=3:[] resourceNames=4:[] nonResourceURLs=5:[]
RoleBinding metadata=1:ObjectMeta subjects=2:[Subject] roleRef=3:RoleRef
Subject kind=1 apiGroup=2 name=3 namespace=4
RoleRef apiGroup=1 kind=2 name=3
Ingress metadata=1:ObjectMeta spec=2:IngressSpec
IngressSpec defaultBackend*=1:IngressBackend tls=2:[IngressTLS] rules=3:[IngressRule] ingressClassName*=4
IngressBackend resource*=3:TypedLocalObjectReference service*=4:IngressServiceBackend
IngressServiceBackend name=1 port=2:ServiceBackendPort
ServiceBackendPort name=1 number=2:int
IngressTLS hosts=1:[] secretName=2
IngressRule host=1 ~=2:IngressRuleValue
IngressRuleValue http*=1:HTTPIngressRuleValue
HTTPIngressRuleValue paths=1:[HTTPIngressPath]
HTTPIngressPath path=1 backend=2:IngressBackend pathType*=3
NetworkPolicy metadata=1:ObjectMeta spec=2:NetworkPolicySpec
NetworkPolicySpec podSelector*=1:LabelSelector ingress=2:[NetworkPolicyIngressRule] egress=3:[NetworkPolicyEgressRule] policyTypes=4:[]
NetworkPolicyIngressRule ports=1:[NetworkPolicyPort] from=2:[NetworkPolicyPeer]
NetworkPolicyEgressRule ports=1:[NetworkPolicyPort] to=2:[NetworkPolicyPeer]
NetworkPolicyPort protocol*=1 port*=2:IntOrString endPort*=3:int
NetworkPolicyPeer podSelector*=1:LabelSelector namespaceSelector*=2:LabelSelector ipBlock*=3:IPBlock
IPBlock cidr=1 except=2:[]

SelfSubjectAccessReview metadata=1:ObjectMeta spec=2:AccessReviewSpec
SubjectAccessReview metadata=1:ObjectMeta spec=2:SubjectAccessReviewSpec
AccessReviewSpec resourceAttributes*=1:ResourceAttributes nonResourceAttributes*=2:NonResourceAttributes
SubjectAccessReviewSpec resourceAttributes*=1:ResourceAttributes nonResourceAttributes*=2:NonResourceAttributes user=3 groups=4:[] uid=6
ResourceAttributes namespace=1 verb=2 group=3 version=4 resource=5 subresource=6 name=7
NonResourceAttributes path=1 verb=2
SelfSubjectRulesReview metadata=1:ObjectMeta spec=2:SelfSubjectRulesReviewSpec
SelfSubjectRulesReviewSpec namespace=1
SelfSubjectReview metadata=1:ObjectMeta
TokenReview metadata=1:ObjectMeta spec=2:TokenReviewSpec
TokenReviewSpec token=1 audiences=2:[]
TokenRequest metadata=1:ObjectMeta spec=2:TokenRequestSpec
TokenRequestSpec audiences=1:[] expirationSeconds*=4:int boundObjectRef*=3:BoundObjectReference
BoundObjectReference kind=1 apiVersion=2 name=3 uid=4
"""  # noqa: E501

_RBAC, _NET, _AUTHORIZATION = "rbac.authorization.k8s.io/v1", "networking.k8s.io/v1", "authorization.k8s.io/v1"

_VERSIONS = {
    "v1": "ConfigMap Secret Namespace ServiceAccount Service Event ResourceQuota Binding PersistentVolumeClaim Pod",
    "apps/v1": "Deployment ReplicaSet DaemonSet",
    "batch/v1": "Job CronJob",
    "autoscaling/v1": "Scale",
    "policy/v1": "PodDisruptionBudget Eviction",
    "coordination.k8s.io/v1": "Lease",
    "scheduling.k8s.io/v1": "PriorityClass",
    _RBAC: "Role RoleBinding ClusterRole",
    _NET: "Ingress NetworkPolicy",
    _AUTHORIZATION: "SelfSubjectAccessReview SubjectAccessReview SelfSubjectRulesReview",
    "authentication.k8s.io/v1": "SelfSubjectReview TokenReview TokenRequest",
}
_KINDS = {(version, kind): kind for version, kinds in _VERSIONS.items() for kind in kinds.split()} | {
    ("autoscaling/v1", "HorizontalPodAutoscaler"): "AutoscalerV1",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "AutoscalerV2",
    (_RBAC, "ClusterRoleBinding"): "RoleBinding",
    (_AUTHORIZATION, "LocalSubjectAccessReview"): "SubjectAccessReview",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name in JSON ("" for `~`), and the type of its value or, when repeated, of its items."""

    name: str
    type: str
    repeated: bool = False
    kept: bool = False


def message_of(api_version: str, kind: str) -> str | None:
    """The message of a kind, or None; options of deletions come under any version."""
    return "DeleteOptions" if kind == "DeleteOptions" else _KINDS.get((api_version, kind))


def fields_of(message: str) -> dict[int, Field] | None:
    """The fields of a message by number; None for a type that is no message."""
    return _messages().get(message)


@lru_cache(maxsize=1)
def _messages() -> dict[str, dict[int, Field]]:
    found = {}
    for line in filter(None, _MESSAGES.splitlines()):
        message, *fields = line.split()
        found[message] = dict(map(_field, fields))
    return found


def _field(text: str) -> tuple[int, Field]:
    name, _, rest = text.partition("=")
    number, _, type_ = rest.partition(":")
    repeated = type_.startswith("[")
    field = Field(name.rstrip("*~"), type_.strip("[]") or "text", repeated, name.endswith("*"))
    return int(number), field
