import json

import pytest

from korch.engines.images import (
    ImageInfo,
    ListedImage,
    check_reference,
    engine_reference,
    parse_image,
    parse_image_list,
    prunable,
    qualified,
    repository,
)
from korch.engines.names import Identity, labels_of
from korch.engines.observed import inspect_template, parse_containers, parse_time
from korch.engines.wish import PublishedPort
from korch.errors import InvalidError

IDENTITY = Identity("cid", "default", "web-1", "u1", "web")
DOCKER = {
    "Id": "191b",
    "Name": "/korch_x",
    "Image": "sha256:cb",
    "Ref": "reg/web:1",
    "Labels": labels_of(IDENTITY),
    "Restarts": 2,
    "Policy": "unless-stopped",
    "State": {
        "Status": "running",
        "ExitCode": 0,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "2026-11-23T07:28:31.760892433Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "Health": {"Status": "healthy"},
    },
    "Ports": {"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": "32768"}], "81/tcp": None},
    "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
}
PODMAN = {
    **DOCKER,
    "Name": "korch_x",
    "Image": "cb" * 32,
    "RefName": "reg/web:1",
    "Ref": "",
    "Ip": "10.88.0.2",
    "Networks": {"podman": {"IPAddress": "10.88.0.2"}},
    "State": {
        "Status": "exited",
        "ExitCode": 3,
        "OOMKilled": True,
        "StartedAt": "2026-11-23T07:28:31.7+02:00",
        "FinishedAt": "2026-11-23T07:29:31+02:00",
    },
}


def test_dockers_containers() -> None:
    (found,) = parse_containers(json.dumps(DOCKER) + "\n", node_now=1795418921.76)
    assert (found.id, found.name, found.image, found.image_id) == ("191b", "korch_x", "reg/web:1", "sha256:cb")
    assert (found.state, found.exit_code, found.restart_count, found.health) == ("running", None, 2, "healthy")
    assert found.identity == IDENTITY
    assert found.ports == (PublishedPort(80, 32768, "tcp", "10.0.0.1"),)
    assert (found.host_port(80), found.host_port(81), found.host_port(80, "udp")) == (32768, None, None)
    assert found.ip == "172.17.0.2"
    assert found.running_s == pytest.approx(10.0, abs=0.01)
    assert found.finished_at is None


def test_podmans_containers() -> None:
    (found,) = parse_containers(json.dumps(PODMAN))
    assert (found.state, found.exit_code, found.oom_killed, found.ip) == ("exited", 3, True, "10.88.0.2")
    assert found.image_id == "sha256:" + "cb" * 32
    assert found.started_at == pytest.approx(1795411711.7)
    assert found.running_s is None


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("created", "created"),
        ("configured", "created"),
        ("Stopped", "exited"),
        ("removing", "removing"),
        ("odd", "exited"),
    ],
)
def test_states_of_both_engines_are_one_set(words: str, state: str) -> None:
    (found,) = parse_containers(json.dumps({"Id": "1", "Name": "x", "State": {"Status": words}}))
    assert found.state == state


def test_noise_between_lines_is_skipped_and_the_order_is_by_name() -> None:
    lines = [json.dumps({**DOCKER, "Name": name}) for name in ("b", "a")]
    found = parse_containers("WARN[0000] cgroup\n" + "\nError: no such object\n".join(lines))
    assert [container.name for container in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T02:00:01+02:00", 1.0),
        ("1970-01-01 00:00:01.25 +0000 UTC", 1.25),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_template_never_asks_for_the_environment(engine: str) -> None:
    assert "Env" not in inspect_template(engine)  # type: ignore[arg-type]


# Images


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("web", "docker.io/library/web"),
        ("web:1", "docker.io/library/web:1"),
        ("team/web:1", "docker.io/team/web:1"),
        ("localhost/web", "localhost/web"),
        ("reg.lab/web", "reg.lab/web"),
        ("10.0.0.1:5000/a/b:1", "10.0.0.1:5000/a/b:1"),
        ("sha256:" + "a" * 64, "sha256:" + "a" * 64),
    ],
)
def test_short_names_mean_what_docker_means(reference: str, whole: str) -> None:
    assert qualified(reference) == whole
    assert engine_reference("podman", reference) == whole
    assert engine_reference("docker", reference) == reference


def test_repositories() -> None:
    assert repository("10.0.0.1:5000/web") == "10.0.0.1:5000/web"
    assert repository("10.0.0.1:5000/web:1@sha256:" + "a" * 64) == "10.0.0.1:5000/web"


@pytest.mark.parametrize(
    "reference", ["", "Web", "-v", "a b", "web:", "web@sha256:12", "a//b", "web:1\n", "--rm", "$(id)"]
)
def test_references_that_are_none(reference: str) -> None:
    with pytest.raises(InvalidError, match="not an image reference"):
        check_reference(reference)


D1, D2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def image_line(*digests: str) -> str:
    return json.dumps({"Id": "c" * 64, "Digests": list(digests), "Tags": [], "Arch": "amd64", "Size": 5})


def test_the_digest_is_that_of_the_references_repository() -> None:
    info = parse_image(image_line(f"other/web@{D1}", f"reg.lab/web@{D2}"), "reg.lab/web:1")
    assert info == ImageInfo("reg.lab/web:1", "sha256:" + "c" * 64, f"reg.lab/web@{D2}", "amd64", 5)
    assert info.pinned == f"reg.lab/web@{D2}"


def test_more_digests_of_one_repository_are_rivals() -> None:
    info = parse_image(image_line(f"reg.lab/web@{D1}", f"mine/web@{D1}", f"reg.lab/web@{D2}"), "reg.lab/web:1")
    assert (info.pinned, info.rivals) == (f"reg.lab/web@{D1}", (f"reg.lab/web@{D2}",))
    sure = parse_image(image_line(f"reg.lab/web@{D1}", f"reg.lab/web@{D2}"), f"reg.lab/web@{D2}")
    assert (sure.pinned, sure.rivals) == (f"reg.lab/web@{D2}", ())


def test_short_references_find_dockers_short_digests() -> None:
    assert parse_image(image_line(f"web@{D1}"), "docker.io/library/web:1").digest_ref == f"web@{D1}"


def test_an_image_without_registry_is_pinned_by_id() -> None:
    assert parse_image(image_line(), "web:1").pinned == "sha256:" + "c" * 64
    assert parse_image(image_line(f"reg.lab/web@{D1}"), "sha256:" + "c" * 64).digest_ref is None


def test_listings() -> None:
    rows = (
        ("c" * 64, "reg/web", "1", D1, "1.98MB"),
        ("c" * 64, "reg/web", "2", D1, "1.98MB"),
        ("sha256:" + "d" * 64, "<none>", "<none>", "<none>", "2.01 GB"),
        ("rubbish",),
    )
    text = "".join("\t".join(row) + "\n" for row in rows)
    assert parse_image_list(text) == (
        ListedImage("sha256:" + "c" * 64, ("reg/web:1", f"reg/web@{D1}", "reg/web:2"), 1980000),
        ListedImage("sha256:" + "d" * 64, (), 2010000000),
    )


def test_only_brought_unused_unwanted_images_with_one_name_may_go() -> None:
    ids = {name: "sha256:" + name * 64 for name in "abcdef"}
    held = [
        ListedImage(ids["a"], ("web:1",), 1),
        ListedImage(ids["b"], ("web:2",), 1),
        ListedImage(ids["c"], (f"reg/web@{D1}",), 1),
        ListedImage(ids["d"], ("web:4", "mine:4"), 1),
        ListedImage(ids["e"], ("web:5",), 1),
    ]
    brought = [ids[name] for name in "abcdf"]
    assert prunable(brought, held, {ids["a"]}, set()) == (ids["b"], ids["c"])
    assert prunable(brought, held, set(), {"docker.io/library/web:2", f"reg/web@{D1}", ids["a"]}) == ()


def test_no_registry_knows_a_digest_of_localhost() -> None:
    assert parse_image(image_line(f"localhost/web@{D1}"), "localhost/web:1").digest_ref is None
