"""EndpointSlices of Services: where each ready pod is reached. The plan is pure; the loop only carries it out.

A pod is reached at its node's address and the ports that it publishes there. Pods that publish the same ports share a
slice; where the engine chose the ports, each pod has one of its own. A pod that goes is no endpoint from then on.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from korch.errors import AlreadyExistsError, ConflictError
from korch.objects.view import View
from korch.resources.meta import ObjectMeta, ObjectReference
from korch.resources.pod import ContainerPort, Pod
from korch.resources.podstate import is_ready, owner_reference, published_of
from korch.resources.service import (
    MANAGED_BY,
    MANAGER,
    NO_ADDRESS,
    SERVICE_NAME,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
)
from korch.resources.templates import safe_digits

HEADLESS = "service.kubernetes.io/headless"
AT_MOST = 1000  # endpoints in a slice
_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (published on every address, the node's among them)

Ports = tuple[EndpointPort, ...]


class SlicePlan(msgspec.Struct, frozen=True):
    """Slices to make, to change and to remove; and the pods that the service selects and that nobody can reach."""

    create: tuple[EndpointSlice, ...] = ()
    update: tuple[EndpointSlice, ...] = ()
    delete: tuple[EndpointSlice, ...] = ()
    unreachable: tuple[str, ...] = ()


def selects(service: Service, pod: Pod) -> bool:
    """Whether the pod is one of the service's, as its selector says."""
    wanted, meta = service.spec.selector, pod.metadata
    if not wanted or meta.namespace != service.metadata.namespace:
        return False
    return wanted.items() <= meta.labels.items()


def plan_slices(service: Service, pods: Iterable[Pod], slices: Iterable[EndpointSlice]) -> SlicePlan:
    """What makes the service's own `slices` tell of `pods`. Order of input is irrelevant.

    Without a selector, or for another host's name, the endpoints are somebody else's to write.
    """
    mine = {found.metadata.name: found for found in slices if found.metadata.labels.get(MANAGED_BY) == MANAGER}
    gone = service.metadata.deletion_timestamp is not None
    if gone or not service.spec.selector or service.spec.type == "ExternalName":
        return SlicePlan(delete=tuple(mine[name] for name in sorted(mine)))
    groups: dict[tuple[str, Ports], list[Endpoint]] = {}
    unreachable = []
    for pod in sorted(pods, key=lambda pod: pod.metadata.name):
        if not selects(service, pod) or not _serves(pod):
            continue
        found = _reached(service, pod)
        if found is None:
            unreachable.append(pod.metadata.name)
        else:
            groups.setdefault(found[:2], []).append(found[2])
    wanted = {made.metadata.name: made for made in _slices(service, groups)}
    changed = (replace(made, metadata=_taken_over(made, mine[name])) for name, made in wanted.items() if name in mine)
    return SlicePlan(
        create=tuple(made for name, made in wanted.items() if name not in mine),
        update=tuple(made for made in changed if made != mine[made.metadata.name]),
        delete=tuple(found for name, found in sorted(mine.items()) if name not in wanted),
        unreachable=tuple(unreachable),
    )


def _serves(pod: Pod) -> bool:
    """Whether it runs and stays: one that is to go is no endpoint from the moment on which that is known."""
    running = any(status.state.running is not None for status in pod.status.container_statuses)
    return running and pod.metadata.deletion_timestamp is None and pod.status.phase not in {"Succeeded", "Failed"}


def _reached(service: Service, pod: Pod) -> tuple[str, Ports, Endpoint] | None:
    """(type of address, ports, endpoint) of a pod; None when it publishes none of the service's ports."""
    address, ports = "", []
    for wanted in service.spec.ports:
        found = _published(pod, wanted)
        if found is None:
            continue
        where = pod.status.host_ip if found.host_ip in _ANYWHERE else found.host_ip
        address = address or where
        if where == address:
            ports.append(_port(wanted, found.host_port))
    address = address or ("" if service.spec.ports else pod.status.host_ip)
    if not address:
        return None
    ready = is_ready(pod)
    endpoint = Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(
            ready=ready or service.spec.publish_not_ready_addresses, serving=ready, terminating=False
        ),
        node_name=pod.spec.node_name,
        target_ref=ObjectReference(
            kind="Pod", namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
    )
    return _family(address), tuple(ports), endpoint


def _published(pod: Pod, wanted: ServicePort) -> ContainerPort | None:
    """Where the port that the service means is reached on the node."""
    numbers = {wanted.target_port}
    if isinstance(wanted.target_port, str):
        numbers = {
            port.container_port
            for container in pod.spec.containers
            for port in container.ports
            if port.name == wanted.target_port
        }
    for port in published_of(pod):
        if port.container_port in numbers and (port.protocol or "TCP") == wanted.protocol and port.host_port:
            return port
    return None


def _port(wanted: ServicePort, number: int) -> EndpointPort:
    return EndpointPort(
        name=wanted.name, port=number, protocol=wanted.protocol or "TCP", app_protocol=wanted.app_protocol
    )


def _family(address: str) -> str:
    try:
        return f"IPv{ipaddress.ip_address(address).version}"
    except ValueError:
        return "FQDN"


def _slices(service: Service, groups: dict[tuple[str, Ports], list[Endpoint]]) -> Iterable[EndpointSlice]:
    for (family, ports), endpoints in groups.items():
        for start in range(0, len(endpoints), AT_MOST):
            yield _slice(service, family, ports, endpoints[start : start + AT_MOST], start // AT_MOST)


def _slice(service: Service, family: str, ports: Ports, endpoints: Sequence[Endpoint], number: int) -> EndpointSlice:
    """Its name is derived from what it is, so that a creation that is repeated meets the first one."""
    meta = service.metadata
    words = "/".join((meta.uid, family, str(number), *(f"{port.name}:{port.protocol}:{port.port}" for port in ports)))
    name = f"{meta.name}-{safe_digits(int.from_bytes(hashlib.sha256(words.encode()).digest()), 7)}"
    labels = {key: text for key, text in meta.labels.items() if key != HEADLESS}
    headless = {HEADLESS: ""} if service.spec.cluster_ip == NO_ADDRESS else {}
    return EndpointSlice(
        metadata=ObjectMeta(
            name=name,
            namespace=meta.namespace,
            labels={**labels, SERVICE_NAME: meta.name, MANAGED_BY: MANAGER, **headless},
            owner_references=(owner_reference(service),),
        ),
        address_type=family,
        endpoints=tuple(endpoints),
        ports=ports,
    )


def _taken_over(made: EndpointSlice, stored: EndpointSlice) -> ObjectMeta:
    return replace(stored.metadata, labels=made.metadata.labels, owner_references=made.metadata.owner_references)


class EndpointsController:
    """Carries out `plan_slices` for one service at a time."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._told: dict[str, tuple[str, ...]] = {}  # by the service's uid: pods that people were told of

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Make the endpoints of one service (namespace, name) true."""
        service = self._view.find(Service, key[1], key[0])
        if service is None:
            return None
        own = self._view.owned(EndpointSlice, service.metadata.uid, key[0])
        plan = plan_slices(service, self._view.all(Pod, key[0]), own)
        for changed in plan.update:
            await self._view.update(changed)
        for surplus in plan.delete:
            await self._view.delete(surplus)
        for made in plan.create:
            try:
                await self._view.create(made)
            except AlreadyExistsError as error:
                raise ConflictError(f"EndpointSlice {made.metadata.name} appeared meanwhile") from error
        await self._tell(service, plan.unreachable)
        return None

    async def _tell(self, service: Service, unreachable: tuple[str, ...]) -> None:
        """Once for the same pods: a selector that matches and endpoints that stay empty are a riddle otherwise."""
        if self._told.get(service.metadata.uid, ()) == unreachable:
            return
        self._told[service.metadata.uid] = unreachable
        if unreachable:
            some = ", ".join(unreachable[:3]) + (" and others" if len(unreachable) > 3 else "")
            ports = ", ".join(str(port.target_port) for port in service.spec.ports)
            text = f"{some}: port {ports} is not published on the node; give hostPort, or annotation korch.dev/publish"
            await self._view.objects.record_event(
                service, type="Warning", reason="NotPublished", message=text, component="endpoints"
            )
