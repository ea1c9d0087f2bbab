"""Endpoints of services: who is listed, where, and from when on no more."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.controllers.endpoints import AT_MOST, SlicePlan, plan_slices
from korch.nodes.farewell import is_endpoint, out_of_endpoints
from korch.objects.objects import Objects
from korch.objects.view import View
from korch.resources.codec import with_meta
from korch.resources.defaults import with_defaults
from korch.resources.meta import Condition, ObjectMeta
from korch.resources.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateRunning,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
)
from korch.resources.service import EndpointSlice, Service, ServicePort, ServiceSpec
from tests.unit.objects.memory_store import MemoryStore


def service(*ports: ServicePort, selector: dict[str, str] | None = None, **spec: object) -> Service:
    wanted = {"app": "web"} if selector is None else selector
    ports = ports or (ServicePort(port=80, target_port="http"),)
    made = Service(metadata=ObjectMeta(name="web", uid="s1"), spec=ServiceSpec(selector=wanted, ports=ports, **spec))
    return with_defaults(made)


def pod(name: str, *, host_port: int = 8080, ready: bool = True, node: str = "n1", app: str = "web") -> Pod:
    published = ContainerPort(container_port=8000, host_port=host_port, host_ip="0.0.0.0", protocol="TCP")
    status = ContainerStatus(
        name="web",
        ready=ready,
        state=ContainerState(running=ContainerStateRunning()),
        published=(published,) if host_port else (),
    )
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default", uid=f"u-{name}", labels={"app": app}),
        spec=PodSpec(
            containers=(Container(name="web", ports=(ContainerPort(container_port=8000, name="http"),)),),
            node_name=node,
        ),
        status=PodStatus(
            phase="Running",
            host_ip=f"10.0.0.{node[1:]}",
            container_statuses=(status,),
            conditions=(Condition(type="Ready", status=str(ready)),),
        ),
    )


def carried_out(plan: SlicePlan, slices: tuple[EndpointSlice, ...] = ()) -> tuple[EndpointSlice, ...]:
    left = {found.metadata.name: found for found in slices}
    for gone in plan.delete:
        del left[gone.metadata.name]
    left |= {found.metadata.name: found for found in (*plan.create, *plan.update)}
    return tuple(left.values())


def listed(slices: tuple[EndpointSlice, ...]) -> dict[str, tuple[str, bool | None, tuple[int | None, ...]]]:
    return {
        endpoint.target_ref.name: (
            endpoint.addresses[0],
            endpoint.conditions.ready,
            tuple(port.port for port in found.ports),
        )
        for found in slices
        for endpoint in found.endpoints
        if endpoint.target_ref
    }


def test_a_pod_is_reached_at_its_node_and_published_port():
    pods = [pod("a"), pod("b", node="n2"), pod("c", node="n3", ready=False)]
    slices = carried_out(plan_slices(service(), pods, ()))
    assert len(slices) == 1
    assert listed(slices) == {
        "a": ("10.0.0.1", True, (8080,)),
        "b": ("10.0.0.2", True, (8080,)),
        "c": ("10.0.0.3", False, (8080,)),
    }
    assert slices[0].metadata.labels["kubernetes.io/service-name"] == "web"
    assert slices[0].address_type == "IPv4"


def test_pods_with_ports_of_their_own_have_slices_of_their_own():
    slices = carried_out(plan_slices(service(), [pod("a", host_port=32001), pod("b", host_port=32002)], ()))
    assert len(slices) == 2
    assert {name: ports for name, (_, _, ports) in listed(slices).items()} == {"a": (32001,), "b": (32002,)}


def test_a_pod_that_is_to_go_is_no_endpoint():
    slices = carried_out(plan_slices(service(), [pod("a"), pod("b")], ()))
    going = with_meta(pod("a"), deletion_timestamp="2026-01-01T00:00:00Z")
    assert set(listed(carried_out(plan_slices(service(), [going, pod("b")], slices), slices))) == {"b"}


def test_who_is_left_out():
    ended = pod("ended")
    ended = replace(ended, status=replace(ended.status, phase="Succeeded"))
    waiting = pod("waiting")
    waiting = replace(waiting, status=replace(waiting.status, container_statuses=()))
    other = with_meta(pod("elsewhere"), namespace="other")
    plan = plan_slices(service(), [pod("db", app="db"), ended, waiting, other, pod("closed", host_port=0)], ())
    assert plan == SlicePlan(unreachable=("closed",))


def test_numbers_names_and_protocols_of_target_ports():
    assert listed(carried_out(plan_slices(service(ServicePort(port=80, target_port=8000)), [pod("a")], ())))
    for target, protocol in ((81, "TCP"), ("admin", "TCP"), (8000, "UDP")):
        port = ServicePort(port=80, target_port=target, protocol=protocol)
        assert plan_slices(service(port), [pod("a")], ()).unreachable == ("a",)


def test_addresses_of_pods_that_are_not_ready_on_request():
    plan = plan_slices(service(publish_not_ready_addresses=True), [pod("a", ready=False)], ())
    assert plan.create[0].endpoints[0].conditions.ready is True
    assert plan.create[0].endpoints[0].conditions.serving is False


def test_what_others_wrote_stays():
    theirs = EndpointSlice(metadata=ObjectMeta(name="web-x", namespace="default"), address_type="IPv4")
    assert plan_slices(service(selector={}), [pod("a")], [theirs]) == SlicePlan()
    assert plan_slices(service(), [], [theirs]) == SlicePlan()


def test_a_service_that_lost_its_selector_loses_its_endpoints():
    slices = carried_out(plan_slices(service(), [pod("a")], ()))
    assert plan_slices(service(selector={}), [pod("a")], slices) == SlicePlan(delete=slices)


def test_a_slice_is_no_longer_than_it_may_be():
    slices = carried_out(plan_slices(service(), [pod(f"p{index:04}") for index in range(AT_MOST + 1)], ()))
    assert sorted(len(found.endpoints) for found in slices) == [1, AT_MOST]


PODS = st.lists(
    st.builds(
        pod,
        st.sampled_from("abcdefgh"),
        host_port=st.sampled_from([0, 8080, 8081]),
        ready=st.booleans(),
        node=st.sampled_from(["n1", "n2"]),
        app=st.sampled_from(["web", "web", "db"]),
    ),
    unique_by=lambda found: found.metadata.name,
    max_size=8,
)


@given(before=PODS, after=PODS, order=st.randoms())
def test_whatever_changes_the_endpoints_are_the_pods_that_serve(before, after, order):
    slices = carried_out(plan_slices(service(), before, ()))
    plan = plan_slices(service(), after, slices)
    slices = carried_out(plan, slices)
    wanted = {
        p.metadata.name for p in after if p.metadata.labels["app"] == "web" and p.status.container_statuses[0].published
    }
    assert set(listed(slices)) == wanted
    assert len(wanted) == sum(len(found.endpoints) for found in slices)
    shuffled = list(after)
    order.shuffle(shuffled)
    again = plan_slices(service(), shuffled, slices)
    assert (again.create, again.update, again.delete) == ((), (), ())


def test_an_end_waits_until_no_endpoint_leads_to_the_pod():
    async def body() -> None:
        objects = Objects(MemoryStore())  # type: ignore[arg-type]
        view = View(objects, (EndpointSlice,))
        made = carried_out(plan_slices(service(), [pod("a")], ()))[0]
        await view.create(with_meta(made, owner_references=()))
        assert is_endpoint(view, pod("a"))
        assert not await out_of_endpoints(view, pod("a"), within_s=0.03)
        waiting = asyncio.create_task(out_of_endpoints(view, pod("a"), within_s=30))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await view.delete(next(view.all(EndpointSlice)))
        assert await waiting

    asyncio.run(body())
