"""Keeps the wishes that nodes hold up to date: each workload's last one, on every node that runs it.

A start writes it along with the container, and it goes with the last container. What changes without a start there (a
scale, a rollback) is brought to the nodes at the end of a run. What each node is known to hold is on record in the
store, so that nothing is sent twice, and a run that was killed is made up for by the next one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import msgspec

from korch.client.base import Workload
from korch.errors import KorchError
from korch.master.cluster import Cluster
from korch.master.contacts import Contact
from korch.master.gathering import each, failures
from korch.nodes.parcels import WorkloadRecord
from korch.nodes.records import record_of
from korch.objects.objects import Objects
from korch.resources.pod import Pod
from korch.resources.podstate import has_begun, workload_name
from korch.resources.workload import DaemonSet, Deployment, ReplicaSet

PREFIX = "/korch.dev/wishes/"
Recorded = Mapping[str, Mapping[str, WorkloadRecord]]
"""By node, by file: the wishes that starts of this run have written (`Keeper.recorded`)."""


def stale_nodes(wish: str, running: frozenset[str], held: Mapping[str, str], reached: frozenset[str]) -> frozenset[str]:
    """The nodes that a workload's wish is to be sent to. Pure.

    `wish` is its digest, `running` the nodes with pods of it, `held` node to the digest that it is known to hold.
    """
    return frozenset(node for node in running & reached if held.get(node) != wish)


def digest_of(content: bytes) -> str:
    """Stands for a wish, whatever the revision at which it was read."""
    data = json.loads(content)
    data.get("metadata", {}).pop("resourceVersion", None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


async def keep_wishes(
    cluster: Cluster, contacts: Mapping[str, Contact], epoch: int, workloads: Sequence[Workload], recorded: Recorded
) -> tuple[str, ...]:
    """Bring the wishes of these workloads to the nodes that run them; a sentence for each node where that failed.

    No round trip is made when every node holds what it should.
    """
    problems: list[str] = []
    for workload in workloads:
        problems += await _keep(cluster, contacts, epoch, workload, recorded)
    return tuple(dict.fromkeys(problems))


async def _keep(
    cluster: Cluster, contacts: Mapping[str, Contact], epoch: int, workload: Workload, recorded: Recorded
) -> tuple[str, ...]:
    key = f"{PREFIX}{workload.namespace}/{workload.name}"
    stored = await cluster.store.get(key)
    found = await _object(cluster.objects, workload)
    if found is None:
        if stored is not None:
            await cluster.store.delete(key)
        return ()
    record, running = record_of(found), await _nodes_of(cluster.objects, workload)
    known = msgspec.json.decode(stored.value, type=dict[str, str]) if stored else {}
    held = {node: digest for node, digest in known.items() if node in running}
    started = {node: records[record.file] for node, records in recorded.items() if record.file in records}
    held |= {node: digest_of(one.content) for node, one in started.items()}
    wish = digest_of(record.content)

    async def write(_: str, contact: Contact) -> None:
        await contact.machine.write_wish(record.namespace, record.workload, record.content, epoch=epoch)

    stale = sorted(stale_nodes(wish, running, held, frozenset(contacts)))
    results = await each({name: contacts[name] for name in stale}, write)
    held |= {node: wish for node, result in results.items() if not isinstance(result, KorchError)}
    if held != known:
        await cluster.store.put(key, msgspec.json.encode(held, order="sorted"))
    return failures(results)


async def _object(objects: Objects, workload: Workload) -> Deployment | ReplicaSet | DaemonSet | Pod | None:
    """The object that the wish is of: the deployment or daemon set, else a set or a pod of its own."""
    name, namespace = workload.name, workload.namespace
    found = await objects.find(Deployment, name, namespace) or await objects.find(DaemonSet, name, namespace)
    if found is not None:
        return found
    sets = (await objects.list(ReplicaSet, namespace)).items
    own = (one for one in sets if not one.metadata.owner_references and workload_name(one) == name)
    single = await objects.find(Pod, name, namespace)
    return next(own, None) or (single if single is not None and not single.metadata.owner_references else None)


async def _nodes_of(objects: Objects, workload: Workload) -> frozenset[str]:
    """Nodes with containers of the workload: where none was made, none will take the wish away with it."""
    pods = (await objects.list(Pod, workload.namespace)).items
    mine = (pod for pod in pods if workload_name(pod) == workload.name and not pod.metadata.deletion_timestamp)
    return frozenset(pod.spec.node_name for pod in mine if has_begun(pod))
