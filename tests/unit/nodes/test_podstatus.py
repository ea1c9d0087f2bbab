"""What a person reads about a container that dies between two looks."""

import pytest

from korch.api.wire.podcells import pod_word
from korch.engines.names import SANDBOX, Identity
from korch.engines.observed import ObservedContainer
from korch.engines.wish import PublishedPort
from korch.nodes.podstatus import Readiness, Sight, observed_status
from korch.nodes.ward import together
from korch.resources.codec import to_dict, with_meta
from korch.resources.pod import Container, ContainerPort, Pod, PodSpec
from korch.resources.podstate import condition, failure_of, is_available, is_ready, main_status


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


# --- several containers ---


def duo(policy: str = "Always") -> Pod:
    spec = PodSpec(
        containers=(Container(name="web", image="w"), Container(name="log", image="l")),
        init_containers=(Container(name="first", image="f"),),
        restart_policy=policy,
    )
    return with_meta(Pod(spec=spec), name="duo")


def sighted(found: Pod, **states: str) -> Pod:
    """The pod after a look at containers: `running`, or the status that they ended with."""
    from msgspec.structs import replace

    sights = {}
    for name, state in states.items():
        code = None if state == "running" else int(state)
        seen = ObservedContainer(
            id=f"id-{name}",
            name=name,
            image="i",
            image_id="",
            state="running" if code is None else "exited",
            exit_code=code,
            started_at=1.0,
        )
        sights[name] = Sight(seen, Readiness(passing=True))
    return replace(found, status=observed_status(found, sights, now=1.0, host_ip="10.0.0.1"))


PHASES = [
    ({}, "Always", "Pending", "Init:0/1"),
    ({"first": "running"}, "Always", "Pending", "Init:0/1"),
    ({"first": "1"}, "Always", "Pending", "Init:Error"),
    ({"first": "1"}, "Never", "Failed", "Init:Error"),
    ({"first": "0"}, "Always", "Pending", "PodInitializing"),
    ({"first": "0", "web": "running"}, "Always", "Running", "PodInitializing"),
    ({"first": "0", "web": "running", "log": "running"}, "Always", "Running", "Running"),
    ({"first": "0", "web": "running", "log": "1"}, "Always", "Running", "Error"),
    ({"first": "0", "web": "running", "log": "0"}, "Never", "Running", "NotReady"),
    ({"first": "0", "web": "1", "log": "0"}, "Never", "Failed", "Error"),
    ({"first": "0", "web": "0", "log": "0"}, "Never", "Succeeded", "Completed"),
    ({"first": "0", "web": "0", "log": "0"}, "OnFailure", "Succeeded", "Completed"),
]


@pytest.mark.parametrize(("states", "policy", "phase", "word"), PHASES)
def test_phase_and_word_of_several_containers(states: dict[str, str], policy: str, phase: str, word: str) -> None:
    found = sighted(duo(policy), **states)
    assert (found.status.phase, pod_word(to_dict(found))) == (phase, word)
    assert is_ready(found) == (word == "Running")
    initialized = condition(found.status.conditions, "Initialized")
    assert initialized is not None
    assert (initialized.status == "True") == (states.get("first") == "0")


def test_of_a_container_that_is_kept_the_record_stays() -> None:
    first = sighted(duo(), first="0", web="running", log="running")
    sights = {"log": Sight(ObservedContainer("x", "log", "i", "", "exited", exit_code=1))}
    status = observed_status(first, sights, now=2.0, host_ip="", kept={"log"})
    assert status.container_statuses == first.status.container_statuses


def test_ports_are_told_of_the_container_that_listens() -> None:
    from msgspec.structs import replace

    made = duo()
    web = replace(made.spec.containers[0], ports=(ContainerPort(container_port=80),))
    made = replace(made, spec=replace(made.spec, containers=(web, made.spec.containers[1])))
    sandbox = ObservedContainer(
        "s",
        "s",
        "i",
        "",
        "running",
        identity=Identity("c", "n", "p", "u", SANDBOX),
        ip="172.17.0.2",
        ports=(PublishedPort(80, 8080, "tcp", "10.0.0.1"),),
    )
    members = {name: ObservedContainer(name, name, "i", "", "running", joined="s") for name in ("web", "log")}
    seen = together({SANDBOX: sandbox, **members})
    status = observed_status(made, {name: Sight(one) for name, one in seen.items()}, now=1.0, host_ip="10.0.0.1")
    assert status.pod_ip == "172.17.0.2"
    assert [[port.host_port for port in one.published] for one in status.container_statuses] == [[8080], []]
