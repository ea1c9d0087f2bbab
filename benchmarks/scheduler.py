"""How fast pods are placed, with every placement checked. `python -m benchmarks.scheduler [--quick]`.

The cluster: zones of 100 nodes, half of its CPU promised to running pods, measured load unlike the promises. The pods:
so many distinct specs, each an own workload; every tenth keeps its pods on different nodes, every tenth spreads over
zones. `schedule_s` is from snapshot to placements; `snapshot_s` is reading nodes, samples and all running pods.
"""

import json
import platform
import random
import statistics
import sys
from time import perf_counter
from typing import Any

from benchmarks.checker import problems
from korch.resources.meta import Condition, LabelSelector, ObjectMeta, OwnerReference
from korch.resources.node import ContainerImage, Node, NodeLoad, NodeSpec, NodeStatus, NodeSystemInfo, Taint
from korch.resources.pod import (
    Affinity,
    Container,
    Pod,
    PodAffinityTerm,
    PodAntiAffinity,
    PodSpec,
    PodStatus,
    ResourceRequirements,
    TopologySpreadConstraint,
)
from korch.resources.times import rfc3339
from korch.scheduler.select import schedule
from korch.scheduler.snapshot import snapshot

NOW = 1_800_000_000.0
ZONE = "topology.kubernetes.io/zone"
NODE_CPUS, NODE_MEMORY_GIB = (8, 16, 32), 4  # GiB a CPU
PODS_PER_NODE = 110


def make_nodes(count: int, rng: random.Random) -> tuple[list[Node], dict[str, NodeLoad]]:
    """Nodes of three sizes; a few are down, cordoned or tainted, as in life."""
    nodes, loads = [], {}
    for n in range(count):
        name, cpus = f"node-{n:04d}", rng.choice(NODE_CPUS)
        memory = cpus * NODE_MEMORY_GIB * 2**30
        down = n % 97 == 96
        allocatable = {"cpu": str(cpus), "memory": str(memory), "pods": str(PODS_PER_NODE)}
        status = NodeStatus(
            capacity=allocatable,
            allocatable=allocatable,
            conditions=(
                Condition(type="Ready", status="False" if down else "True", reason="Unreachable" if down else ""),
            ),
            images=tuple(ContainerImage(names=(f"registry.lab/app-{i}:1",)) for i in rng.sample(range(200), 10)),
            node_info=NodeSystemInfo(architecture="amd64"),
        )
        labels = {ZONE: f"zone-{n % max(1, count // 100)}", "disk": rng.choice(("ssd", "hdd"))}
        taints = (Taint(key="dedicated", value="db", effect="NoSchedule"),) if n % 50 == 49 else ()
        spec = NodeSpec(unschedulable=n % 101 == 100, taints=taints)
        nodes.append(Node(metadata=ObjectMeta(name=name, labels=labels), spec=spec, status=status))
        busy, used = rng.uniform(0.05, 0.7), rng.uniform(0.1, 0.5)
        loads[name] = NodeLoad(
            sampled_at=rfc3339(NOW - rng.uniform(1, 20)),
            cpu_count=cpus,
            cpu_busy_smoothed=busy,
            load1=busy * cpus,
            memory_total_bytes=memory,
            memory_available_bytes=int(memory * (1 - used)),
            disk_total_bytes=100 * 2**30,
            disk_free_bytes=50 * 2**30,
        )
    return nodes, loads


def make_spec(number: int, rng: random.Random) -> tuple[dict[str, str], PodSpec]:
    """Labels and spec of workload `number`; one in five has anti-affinity or spread."""
    labels = {"app": f"app-{number}", "pod-template-hash": f"{number:08x}"}
    own = LabelSelector(match_labels={"app": labels["app"]})
    requests = {"cpu": f"{rng.choice((50, 100, 200, 250))}m", "memory": f"{rng.choice((64, 128, 256, 512))}Mi"}
    affinity: Affinity | None = None
    spread: tuple[TopologySpreadConstraint, ...] = ()
    if number % 10 == 3:
        term = PodAffinityTerm(topology_key="kubernetes.io/hostname", label_selector=own)
        affinity = Affinity(
            pod_anti_affinity=PodAntiAffinity(required_during_scheduling_ignored_during_execution=(term,))
        )
    elif number % 10 == 7:
        spread = (
            TopologySpreadConstraint(
                max_skew=2, topology_key=ZONE, when_unsatisfiable="DoNotSchedule", label_selector=own
            ),
        )
    selector = {"disk": "ssd"} if number % 10 == 5 else {}
    container = Container(
        name="main",
        image=f"registry.lab/app-{number % 200}:1",
        resources=ResourceRequirements(requests=dict(requests)),
    )
    return labels, PodSpec(
        containers=(container,), affinity=affinity, topology_spread_constraints=spread, node_selector=selector
    )


def make_pods(count: int, specs: list[tuple[dict[str, str], PodSpec]], prefix: str) -> list[Pod]:
    """Pods dealt over the specs, each spec a workload of its own."""
    pods = []
    for n in range(count):
        number = n % len(specs)
        labels, spec = specs[number]
        owner = OwnerReference(
            api_version="apps/v1",
            kind="ReplicaSet",
            name=f"{prefix}-{number}",
            uid=f"{prefix}-{number}",
            controller=True,
        )
        meta = ObjectMeta(
            name=f"{prefix}-{number}-{n}",
            namespace="default",
            uid=f"uid-{prefix}-{n}",
            labels=dict(labels),
            owner_references=(owner,),
            creation_timestamp=rfc3339(NOW - 60),
        )
        pods.append(Pod(metadata=meta, spec=spec))
    return pods


def fill_half(nodes: list[Node], rng: random.Random) -> list[Pod]:
    """Running pods that hold half of the CPU: on every node until its half is reached."""
    specs = [make_spec(10_000 + n * 10, rng) for n in range(200)]  # none of them picky
    running, number = [], 0
    for node in nodes:
        millis = int(node.status.allocatable["cpu"]) * 500
        count = 0
        while millis > 0 and count < PODS_PER_NODE // 2:
            pod = make_pods(1, [specs[number % 200]], f"old-{number % 200}")[0]
            request = pod.spec.containers[0].resources.requests["cpu"]
            millis -= int(str(request).removesuffix("m"))
            running.append(_running(pod, node.metadata.name, number))
            number, count = number + 1, count + 1
    return running


def _running(pod: Pod, node: str, number: int) -> Pod:
    meta = ObjectMeta(
        name=f"old-{number}",
        namespace="default",
        uid=f"old-{number}",
        labels=pod.metadata.labels,
        owner_references=pod.metadata.owner_references,
    )
    spec = PodSpec(containers=pod.spec.containers, node_name=node)
    return Pod(metadata=meta, spec=spec, status=PodStatus(phase="Running", start_time=rfc3339(NOW - 3600)))


def measure(
    node_count: int, pod_count: int, spec_count: int, *, repeats: int, record: int | None = None, check: bool = True
) -> dict[str, Any]:
    """One point: medians over `repeats` runs of the same world, and the checker's findings on the last."""
    rng = random.Random(7)
    nodes, loads = make_nodes(node_count, rng)
    running = fill_half(nodes, rng)
    specs = [make_spec(n, rng) for n in range(spec_count)]
    pods = make_pods(pod_count, specs, "new")
    reading, placing, decisions = [], [], []
    for _ in range(repeats):
        start = perf_counter()
        snap = snapshot(nodes, loads, running, now=NOW)
        read = perf_counter()
        decisions = schedule(snap, pods, record=record)
        done = perf_counter()
        reading.append(read - start)
        placing.append(done - read)
    by_uid = {pod.metadata.uid: pod for pod in pods}
    replay = [(by_uid[d.uid], d.node) for d in decisions]
    found = problems(nodes, loads, running, replay, NOW, look_at_pending=5) if check else []
    return {
        "nodes": node_count,
        "running_pods": len(running),
        "pods": pod_count,
        "specs": spec_count,
        "placed": sum(d.node is not None for d in decisions),
        "snapshot_s": round(statistics.median(reading), 3),
        "schedule_s": round(statistics.median(placing), 3),
        "pods_per_s": round(pod_count / statistics.median(placing)),
        "pods_per_s_with_snapshot": round(pod_count / (statistics.median(placing) + statistics.median(reading))),
        "problems": found[:5],
        "problem_count": len(found),
    }


def run(*, quick: bool = False) -> dict[str, Any]:
    """The figures: the headline, the same with full records, and the curve."""
    headline = measure(1000, 10_000, 200, repeats=1 if quick else 5)
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "headline": headline,
        "target_pods_per_s": 10_000,
        "reached": headline["pods_per_s"] >= 10_000 and not headline["problem_count"],
        "fully_recorded": measure(100, 1_000, 200, repeats=3, record=8),
    }
    sizes = (
        [(100, 1_000), (1000, 30_000)]
        if quick
        else [(100, 1_000), (300, 5_000), (1000, 30_000), (2500, 75_000), (5000, 150_000)]
    )
    figures["curve"] = [measure(nodes, pods, 200, repeats=1, record=1) for nodes, pods in sizes]
    return figures


def main() -> None:
    """Print the figures as JSON."""
    print(json.dumps(run(quick="--quick" in sys.argv), indent=2))


if __name__ == "__main__":
    main()
