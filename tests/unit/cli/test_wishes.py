"""What `korch deploy` and `korch plan` wish for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from korch.cli.deploy import deploy
from korch.cli.plan import plan
from korch.cli.wishes import DeployOptions, read_wish
from korch.client.base import NodeSeen
from korch.client.declare import check_ports
from korch.errors import ForbiddenError, InvalidError
from korch.resources.codec import with_meta
from korch.resources.expand import SECRETS_OF_LABEL
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.workload import Deployment

from .world import FakeClient, World, a_deployment, a_node

NOTHING_GIVEN: dict[str, Any] = dict.fromkeys(("image", "name", "replicas", "cpu", "memory", "command", "health"))


def options(**given: Any) -> DeployOptions:
    lists = dict.fromkeys(("files", "ports", "env", "env_files", "volumes", "selectors"), ())
    return DeployOptions(
        **{**NOTHING_GIVEN, **lists, "registry_auth": None, "namespace": "default", "limit": "", **given}
    )


def wished(world: World, **given: Any) -> tuple[Object, ...]:
    """What the wish of these options is on the world's cluster."""

    async def ask() -> tuple[Object, ...]:
        client = FakeClient(world, (await world.open_client(None)).store)  # type: ignore[arg-type]
        try:
            return await read_wish(options(**given)).objects(client)  # type: ignore[arg-type]
        finally:
            await client.close()

    return asyncio.run(ask())


def test_a_limit_that_a_master_would_not_hear_of_is_refused(world: World) -> None:
    world.info = replace(world.info, lead="root@m:1", doing="master")
    result = world.run("deploy", "web:1", "--limit", "n1")
    assert result.exit_code == ForbiddenError.exit_code
    assert "a master leads now (root@m:1)" in result.output
    assert "--node-selector" in result.output
    assert world.read(Deployment, "web") is None
    assert world.run("deploy", "web:1").exit_code == 0


def replicas(world: World, **given: Any) -> int | None:
    (found,) = (obj for obj in wished(world, **given) if isinstance(obj, Deployment))
    return found.spec.replicas


@pytest.fixture
def app(tmp_path: Path) -> str:
    file = tmp_path / "korch.yml"
    file.write_text("name: web\nimage: web:1\n")
    return str(file)


def test_an_app_that_stands_keeps_its_number_of_replicas(world: World, app: str) -> None:
    world.put(a_deployment("web", 3))
    assert replicas(world, files=(app,)) == 3
    assert replicas(world, image="web:2") == 3


def test_a_number_that_is_given_wins(world: World, app: str) -> None:
    world.put(a_deployment("web", 3))
    assert replicas(world, files=(app,), replicas=5) == 5
    Path(app).write_text("name: web\nimage: web:1\nreplicas: 2\n")
    assert replicas(world, files=(app,)) == 2


def test_a_new_app_has_one_replica(world: World, app: str) -> None:
    assert replicas(world, files=(app,)) == 1
    world.put(a_deployment("web", 3, namespace="other"))
    assert replicas(world, files=(app,)) == 1
    assert replicas(world, files=(app,), namespace="other") == 3


def test_the_namespace_of_the_file_counts(world: World, app: str) -> None:
    Path(app).write_text("name: web\nnamespace: other\nimage: web:1\n")
    world.put(a_deployment("web", 4, namespace="other"))
    assert replicas(world, files=(app,)) == 4


def test_a_secret_that_did_not_change_keeps_its_name_in_every_namespace(
    world: World, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "t")
    Path(app).write_text("name: web\nnamespace: other\nimage: web:1\nsecrets: [TOKEN]\n")

    def secret() -> Secret:
        (found,) = (obj for obj in wished(world, files=(app,)) if isinstance(obj, Secret))
        assert SECRETS_OF_LABEL in found.metadata.labels
        return found

    first = secret()
    world.put(first)
    assert secret().metadata.name == first.metadata.name


def test_plan_takes_every_option_that_says_what_to_run() -> None:
    only_of_deploy = {"timeout_s", "settle_s", "no_wait", "dry_run", "output"}
    assert {param.name for param in plan.params} == {param.name for param in deploy.params} - only_of_deploy


def refused(world: World, *, nodes: int, **given: Any) -> str:
    """Why ports do not allow the wish, or "" ."""
    world.seen = [NodeSeen(a_node(f"n{number}"), None) for number in range(nodes)]

    async def ask() -> str:
        client = FakeClient(world, (await world.open_client(None)).store)  # type: ignore[arg-type]
        try:
            await check_ports(client, await read_wish(options(**given)).objects(client))  # type: ignore[arg-type]
        except InvalidError as error:
            return str(error)
        finally:
            await client.close()
        return ""

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"replicas": 2, "ports": ("80:80",)}, ""),
        ({"replicas": 3, "ports": ("80:80",)}, '"web": 3 replicas cannot share node port 80 on 2 node(s)'),
        ({"replicas": 3, "ports": ("80",)}, ""),
        (
            {"replicas": 2, "ports": ("80:80",), "volumes": ("data:/d",)},
            '"web": 2 replicas cannot share node port 80 on the one node that holds volume data',
        ),
        ({"replicas": 1, "ports": ("80:80",), "volumes": ("data:/d",)}, ""),
        ({"replicas": 2, "ports": ("80:80",), "volumes": ("/srv:/d",)}, ""),
        ({"replicas": 2, "ports": ("80",), "volumes": ("data:/d",)}, ""),
    ],
    ids=str,
)
def test_replicas_that_could_never_all_run_are_refused(world: World, given: dict[str, Any], why: str) -> None:
    assert refused(world, nodes=2, image="web:1", **given) == why


def test_settings_that_a_bare_image_takes_away_are_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = wished(world, image="web:1", ports=("80",), health="/", memory="64Mi", env=("A=b",))
    world.put(with_meta(old, uid="u"))
    assert capsys.readouterr().err == ""
    wished(world, image="web:2", env=("A=c",))
    assert "web had ports, a health check and resources, which this command takes away" in capsys.readouterr().err
    wished(world, image="web:2", env=("A=c",), ports=("80",), memory="1Gi")
    assert "web had a health check, which" in capsys.readouterr().err
    wished(world, image="web:2", env=("A=c",), ports=("90",), memory="1Gi", health="/x")
    assert capsys.readouterr().err == ""


def test_a_file_is_the_whole_wish_without_a_word(world: World, app: str, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = wished(world, image="web:1", ports=("80",))
    world.put(with_meta(old, uid="u"))
    wished(world, files=(app,))
    assert capsys.readouterr().err == ""
