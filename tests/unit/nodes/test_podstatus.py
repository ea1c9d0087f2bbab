"""What a person reads about a container that dies between two looks."""

from korch.engines.observed import ObservedContainer
from korch.nodes.podstatus import Readiness, Sight, observed_status
from korch.resources.codec import with_meta
from korch.resources.pod import Container, Pod, PodSpec
from korch.resources.podstate import failure_of, is_available, main_status


def pod() -> Pod:
    return with_meta(
        Pod(spec=PodSpec(node_name="n1", containers=(Container(name="web", image="web:1"),))), name="web-1"
    )


def looks(found: Pod, *states: tuple[str, int | None, int]) -> Pod:
    """The pod after looks at its container: (state, exit code, restarts)."""
    from msgspec.structs import replace

    for state, code, restarts in states:
        seen = ObservedContainer(
            id="c1", name="c", image="web:1", image_id="", state=state, exit_code=code, restart_count=restarts
        )
        sight = Sight(seen, Readiness(passing=True), "no file")
        status = observed_status(found, {"web": sight}, now=1.0, host_ip="")
        found = replace(found, status=status)
    return found


def test_end_between_two_looks_shows_the_status_that_was_seen_before() -> None:
    found = looks(pod(), ("exited", 3, 0), ("running", None, 1), ("running", None, 4))
    assert main_status(found).last_state.terminated.exit_code == 3
    assert "web-1 on n1: the container exited with status 3" in failure_of(found)


def test_end_that_nobody_saw_is_not_given_a_status() -> None:
    found = looks(pod(), ("running", None, 0), ("running", None, 2))
    assert "web-1 on n1: the container ended and was started again" in failure_of(found)
    assert "no file" in failure_of(found)


def seen_at(found: Pod, now: float, *, restarts: int = 0, started: float = 0.0, settle_s: int = 2) -> Pod:
    from msgspec.structs import replace

    seen = ObservedContainer(
        id="c1", name="c", image="web:1", image_id="", state="running", restart_count=restarts, started_at=started
    )
    sights = {"web": Sight(seen, Readiness(passing=True))}
    return replace(found, status=observed_status(found, sights, now=now, host_ip="", settle_s=settle_s))


def test_a_pod_is_available_only_when_it_was_seen_well_after_its_settling_time() -> None:
    found = seen_at(pod(), 100.9)
    assert not is_available(found, 2, 1_000.0)  # time alone proves nothing
    found = seen_at(found, 102.5)
    assert not is_available(found, 2, 1_000.0)
    found = seen_at(found, 103.0)
    assert is_available(found, 2, 103.0)
    assert seen_at(found, 110.0) == found  # later looks write nothing


def test_a_container_that_dies_again_and_again_never_becomes_available() -> None:
    found = pod()
    for step in range(8):
        found = seen_at(found, 100.0 + step, restarts=step, started=100.0 + step)
        assert not is_available(found, 2, 1_000.0)


def test_without_a_settling_time_the_first_look_is_enough() -> None:
    assert is_available(seen_at(pod(), 100.0, settle_s=0), 0, 100.0)
