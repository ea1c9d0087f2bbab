from dataclasses import replace

import pytest

from korch.engines.environ import Environment, split_environment
from korch.engines.names import Identity
from korch.engines.run import run
from korch.engines.wish import ContainerWish, EngineName, EnvValue, Mount, PublishedPort
from korch.errors import InvalidError

IDENTITY = Identity("cid", "default", "web-1", "aaaaaaaa-1", "web", "web", 2, "h")
WISH = ContainerWish(IDENTITY, "lab", "reg/web@sha256:" + "a" * 64)
LABELS = tuple(
    word
    for label in (
        "cluster=cid",
        "container=web",
        "generation=2",
        "hash=h",
        "namespace=default",
        "owner=web",
        "pod=web-1",
        "uid=aaaaaaaa-1",
    )
    for word in ("--label", f"korch.dev/{label}")
)
HEAD = ("--detach", "--name", "korch_lab_default_web-1_web_aaaaaaaa", "--pull", "never", *LABELS)


def test_the_least_wish_for_docker() -> None:
    assert run("docker", WISH) == (
        *HEAD,
        *("--restart", "no", "--stop-timeout", "30", "--log-driver", "json-file"),
        *("--log-opt", "max-size=10240k", "--log-opt", "max-file=3", WISH.image),
    )


def test_the_least_wish_for_podman() -> None:
    assert run("podman", WISH) == (
        *HEAD,
        *("--restart", "no", "--stop-timeout", "30", "--log-driver", "k8s-file", "--log-opt", "max-size=10240k"),
        WISH.image,
    )


def test_input_that_ends_with_its_first_client_needs_a_container_that_is_made_with_it() -> None:
    once = replace(WISH, stdin=True, stdin_once=True)
    assert run("docker", once)[:2] == ("--attach", "stdin")
    assert run("podman", once)[0] == run("docker", replace(once, stdin_once=False))[0] == "--detach"


def tail(wish: ContainerWish, engine: EngineName = "docker") -> tuple[str, ...]:
    """The words that a wish adds to those of every container."""
    words = run(engine, wish)
    return words[words.index("max-file=3" if engine == "docker" else "max-size=10240k") + 1 :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu_limit_millis": 250}, ("--cpu-period", "100000", "--cpu-quota", "25000")),
        ({"cpu_limit_millis": 1}, ("--cpu-period", "100000", "--cpu-quota", "1000")),
        ({"cpu_request_millis": 500}, ("--cpu-shares", "512")),
        ({"cpu_request_millis": 1}, ("--cpu-shares", "2")),
        ({"memory_limit_bytes": 1 << 26}, ("--memory", "67108864b")),
        ({"ports": (PublishedPort(80, 8080, "tcp", "10.0.0.1"),)}, ("--publish", "10.0.0.1:8080:80/tcp")),
        ({"ports": (PublishedPort(80, 0, "tcp", "10.0.0.1"),)}, ("--publish", "10.0.0.1::80/tcp")),
        ({"ports": (PublishedPort(53, 53, "UDP", "fd00::1"),)}, ("--publish", "[fd00::1]:53:53/udp")),
        ({"ports": (PublishedPort(80),)}, ("--publish", "80/tcp")),
        ({"user": "5:6"}, ("--user", "5:6")),
        ({"read_only": True}, ("--read-only",)),
        ({"privileged": True}, ("--privileged",)),
        ({"no_new_privileges": True}, ("--security-opt", "no-new-privileges")),
        ({"cap_drop": ("ALL",), "cap_add": ("CHOWN",)}, ("--cap-add", "CHOWN", "--cap-drop", "ALL")),
        ({"hostname": "web-1"}, ("--hostname", "web-1")),
        ({"working_dir": "/srv"}, ("--workdir", "/srv")),
        ({"tty": True, "stdin": True}, ("--interactive", "--tty")),
        ({"env": (EnvValue("A", "secret"),)}, ("--env", "A")),
        ({"env": (EnvValue("PATH", "/bin"),)}, ("--env-file", "/dev/stdin")),
        ({"mounts": (Mount("scratch", "/s"),)}, ("--volume", "/s")),
        ({"mounts": (Mount("tmpfs", "/t", size_bytes=4096),)}, ("--tmpfs", "/t:rw,size=4096")),
        ({"mounts": (Mount("volume", "/v", "data", True),)}, ("--volume", "data:/v:ro")),
        ({"mounts": (Mount("bind", "/b", "/a b", True),)}, ("--mount", "type=bind,source=/a b,target=/b,readonly")),
        ({"mounts": (Mount("bind", "/b", "/a,b"),)}, ("--volume", "/a,b:/b")),
        ({"mounts": (Mount("bind", "/b", "/a:b"),)}, ("--mount", "type=bind,source=/a:b,target=/b")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_become_words(change: dict[str, object], words: tuple[str, ...]) -> None:
    assert tail(replace(WISH, **change)) == (*words, WISH.image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entrypoint", "args", "words"),
    [
        ((), ("-v", "$(id)"), (WISH.image, "-v", "$(id)")),
        (("sh",), (), ("--entrypoint", "sh", WISH.image)),
        (("sh", "-c", "x y"), ("z",), ("--entrypoint", "sh", WISH.image, "-c", "x y", "z")),
    ],
)
def test_command_and_args_are_those_of_kubernetes(
    entrypoint: tuple[str, ...], args: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert tail(replace(WISH, entrypoint=entrypoint, args=args)) == words


@pytest.mark.parametrize(
    "change",
    [
        {"entrypoint": ("",)},
        {"args": ("x" * 70_000,)},
        {"args": ("a\0b",)},
        {"mounts": (Mount("bind", "/b", "relative"),)},
        {"mounts": (Mount("bind", "/b", "/a/../etc"),)},
        {"mounts": (Mount("bind", "/b", "/a,:b"),)},
        {"mounts": (Mount("volume", "/v:ro", "data"),)},
        {"mounts": (Mount("scratch", "/v\nx"),)},
    ],
    ids=str,
)
def test_what_no_engine_can_do_is_invalid(change: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        run("docker", replace(WISH, **change))  # type: ignore[arg-type]


def test_secrets_stand_in_no_word_and_no_repr() -> None:
    wish = replace(WISH, env=(EnvValue("A", "hunter2", secret=True), EnvValue("PATH", "hunter2", secret=True)))
    assert not any("hunter2" in word for word in run("docker", wish))
    assert "hunter2" not in repr(wish) + repr(split_environment("docker", wish.env))


def test_ways_of_the_environment() -> None:
    env = [EnvValue("A", "1"), EnvValue("PATH", "/x"), EnvValue("a.b", "2"), EnvValue("A", "3\n")]
    assert split_environment("docker", env) == Environment((("A", "3\n"),), "PATH=/x\na.b=2\n")


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "DOCKER_HOST", "IFS", "UID", "https_proxy", "XDG_RUNTIME_DIR", "korch_x"]
)
def test_names_that_would_change_the_engine_are_not_exported(name: str) -> None:
    assert split_environment("docker", [EnvValue(name, "x")]).exported == ()


@pytest.mark.parametrize(
    ("engine", "name", "value"),
    [
        ("docker", "PATH", "a\nb"),
        ("docker", "PATH", "a\rb"),
        ("docker", "PATH", "x" * 40_000),
        ("podman", "PATH", "'quoted'"),
        ("podman", "PATH", " padded "),
        ("docker", "1A", "x"),
        ("docker", "", "x"),
        ("docker", "A B", "x"),
        ("docker", "A=B", "x"),
        ("docker", "A", "a\0b"),
        ("docker", "A", "x" * 130_000),
        ("docker", "A", "\ud800"),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_values_that_cannot_arrive_whole_are_invalid(engine: EngineName, name: str, value: str) -> None:
    with pytest.raises(InvalidError):
        split_environment(engine, [EnvValue(name, value)])


def test_a_member_of_a_pod_joins_the_sandbox_that_the_node_finds() -> None:
    member = replace(
        WISH, sandbox="korch_x_POD", hostname="web-1", mounts=(Mount("shared", "/data", "/volumes/3", True),)
    )
    for engine, told in (("docker", False), ("podman", True)):
        words = run(engine, member)  # type: ignore[arg-type]
        assert words[words.index("--network") + 1] == "container:@korch-sandbox"
        assert words[words.index("--volume") + 1] == "@korch-sandbox/volumes/3:/data:ro,nocopy"
        assert ("--hostname" in words) is told, "Docker takes the sandbox's, and refuses to be told"
        assert "korch_x_POD" not in words


def test_a_sandbox_is_ended_at_once() -> None:
    words = run("podman", replace(WISH, stop_signal="SIGKILL", stop_grace_s=0, hostname="web-1"))
    assert words[words.index("--stop-timeout") + 1 :][:3] == ("0", "--stop-signal", "SIGKILL")
    assert "--network" not in words
