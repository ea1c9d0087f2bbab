"""Shapes: what makes two pods the same to the scheduler, and what they ask for."""

import msgspec
import pytest

from korch.errors import InvalidError
from korch.resources.images import PINNED
from korch.resources.pod import Container, PodSpec, ResourceRequirements
from korch.scheduler.shape import Shapes, image_name, requested, workload_of
from korch.scheduler.snapshot import node_view, snapshot
from tests.unit.scheduler.world import GI, NOW, apart, load, node, pod, spread


def test_pods_that_differ_in_name_and_node_only_share_a_shape() -> None:
    shapes = Shapes()
    one = shapes.of(pod("a", owner="rs", cpu="1", affinity=apart(), labels={"x": "1", "y": "2"}))
    assert shapes.of(pod("b", owner="rs", cpu="1", on="n", affinity=apart(), labels={"y": "2", "x": "1"})) is one


@pytest.mark.parametrize(
    "other",
    [
        pod(cpu="2"),
        pod(app="db"),
        pod(owner="rs"),
        pod(image="registry.lab/web:2"),
        pod(affinity=apart()),
        pod(topology_spread_constraints=spread()),
        pod(node_selector={"a": "b"}),
        pod(volumes=["data"]),
        pod(ports=["80"]),
        pod(annotations={"korch.dev/arch": "arm64"}),
        pod(annotations={"korch.dev/publish": "80/tcp"}),
    ],
)
def test_what_matters_makes_another_shape(other: object) -> None:
    shapes = Shapes()
    assert shapes.of(msgspec.convert(other, type=type(pod()))) is not shapes.of(pod())


def containers(*asks: dict[str, str | int | float], limits: bool = False) -> tuple[Container, ...]:
    return tuple(
        Container(
            name=f"c{n}", resources=ResourceRequirements(limits=ask) if limits else ResourceRequirements(requests=ask)
        )
        for n, ask in enumerate(asks)
    )


def test_requests_add_up_and_init_containers_run_before() -> None:
    assert requested(containers({"cpu": "100m"}, {"cpu": 1}), (), "cpu") == 1100
    assert (
        requested(containers({"memory": "1Gi"}), containers({"memory": "3Gi"}, {"memory": "2Gi"}), "memory") == 3 * GI
    )
    assert requested(containers({"cpu": "2"}), containers({"cpu": "1"}), "cpu") == 2000
    assert requested(containers({"cpu": "500m"}, limits=True), (), "cpu") == 500
    assert requested(containers({}), (), "cpu") == 0


def test_a_malformed_request_is_refused() -> None:
    with pytest.raises(InvalidError, match="lots"):
        Shapes().of(pod(cpu="lots"))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("registry.lab/a/b:2", "registry.lab/a/b:2"),
        ("nginx@sha256:ab", "docker.io/library/nginx@sha256:ab"),
        ("registry.lab:5000/web:1@sha256:ab", "registry.lab:5000/web@sha256:ab"),
    ],
)
def test_image_names(image: str, name: str) -> None:
    assert image_name(image) == name


def test_the_workload_is_the_controller() -> None:
    assert workload_of(pod(owner="web-1").metadata) == "default/ReplicaSet/web-1"
    assert workload_of(pod().metadata) == ""


def test_what_a_node_does_not_say() -> None:
    view = node_view(node("a"), None, NOW)
    assert (view.cpu_millis, view.memory_bytes, view.sample_age_s) == (4000, 4 * GI, None)
    assert view.labels["kubernetes.io/hostname"] == "a"
    bare = msgspec.structs.replace(
        node("a"), status=msgspec.structs.replace(node("a").status, allocatable={}, capacity={})
    )
    assert (node_view(bare, load(cpus=2), NOW).cpu_millis, node_view(bare, load(), NOW).max_pods) == (2000, 110)
    assert node_view(bare, load(), NOW).memory_bytes == 4 * GI


def test_a_sample_from_the_future_is_fresh() -> None:
    assert node_view(node("a"), load(age_s=-5), NOW).sample_age_s == 0


def test_odd_clock_text_of_an_engine_means_that_the_pod_runs() -> None:
    odd = pod("old", on="a")
    odd = msgspec.structs.replace(odd, status=msgspec.structs.replace(odd.status, start_time="soon"))
    assert snapshot([node("a")], {"a": load()}, [odd], now=NOW).placed[0].hidden is False


def test_bare_template_of_a_pod() -> None:
    assert Shapes().of(msgspec.structs.replace(pod(), spec=PodSpec())).images == ()


def test_what_was_pulled_by_its_digest_is_known_by_it() -> None:
    exact = f"registry.lab/web@sha256:{'0' * 64}"
    shapes = Shapes()
    assert shapes.of(pod(annotations={PINNED: exact})).images == (exact,)
    assert shapes.of(pod(annotations={PINNED: "sha256:abc"})).images == ("registry.lab/web:1",), "an id is no name"
    assert shapes.of(pod()).images == ("registry.lab/web:1",)


def test_init_containers_that_go_on_count_with_what_comes_after_them() -> None:
    def asks(name: str, millis: int, policy: str = "") -> Container:
        return Container(
            name=name, restart_policy=policy, resources=ResourceRequirements(requests={"cpu": f"{millis}m"})
        )

    beside, first, later = asks("b", 100, "Always"), asks("f", 500), asks("l", 300, "Always")
    main = (asks("m", 200),)
    assert requested(main, (beside,), "cpu") == 300
    assert requested(main, (beside, first), "cpu") == 600
    assert requested(main, (first, beside), "cpu") == 500
    assert requested(main, (beside, first, later), "cpu") == 600
    assert requested(main, (beside, later, first), "cpu") == 900
