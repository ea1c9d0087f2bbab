"""Registry credentials: found where engines keep them, one entry only, never shown."""

import asyncio
import base64
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from korch.cli import registry_auth as auth
from korch.cli.registry_auth import Credentials, find_credentials, registry_of, with_registry_secrets
from korch.client.declare import pin_images
from korch.errors import InvalidError, NotFoundError
from korch.objects.objects import ObjectList
from korch.resources.codec import with_meta
from korch.resources.expand import unused_secrets
from korch.resources.meta import Object
from korch.resources.misc import Secret
from korch.resources.pod import LocalObjectReference
from korch.resources.validation import DOCKER_CONFIG_KEY, validate
from korch.resources.workload import Deployment
from tests.unit.controllers.cluster import deployment

PAIR = base64.b64encode(b"ann:pa:ss").decode()
OTHER = base64.b64encode(b"bob:other").decode()


class Shelf:
    """The part of a client that credentials need."""

    def __init__(self, *secrets: Secret) -> None:
        self.secrets = list(secrets)
        self.asked: list[tuple[str, bytes | None]] = []

    async def list(self, type_: type[Any], namespace: str = "", **_: Any) -> ObjectList[Any]:
        return ObjectList(tuple(self.secrets), 1)

    async def get(self, type_: type[Any], name: str, namespace: str = "default") -> Any:
        for secret in self.secrets:
            if secret.metadata.name == name:
                return secret
        raise NotFoundError(name)

    async def resolve_image(self, image: str, *, auth: bytes | None = None, pull: bool = True, **_: Any) -> str:
        self.asked.append((image, auth))
        return "sha256:" + "a" * 64


def found(config: dict[str, Any], image: str) -> Credentials | None:
    return asyncio.run(find_credentials(config, image))


def with_secrets(
    shelf: Shelf, *objects: Object, home: Path, file: str | None = None, env: dict[str, str] | None = None
) -> tuple[Object, ...]:
    environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), **(env or {})}
    return asyncio.run(with_registry_secrets(shelf, objects, file, environ))  # type: ignore[arg-type]


def docker_config(home: Path, **config: Any) -> Path:
    path = home / ".docker" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def secrets_in(objects: Sequence[Object]) -> list[Secret]:
    return [obj for obj in objects if isinstance(obj, Secret)]


def config_in(secret: Secret) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(secret.data[DOCKER_CONFIG_KEY])))


# --- which entry ---


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("web", "docker.io"),
        ("team/web:1", "docker.io"),
        ("reg.lab:5000/web:1", "reg.lab:5000"),
        ("reg.lab/team/web@sha256:" + "a" * 64, "reg.lab"),
        ("localhost/web", "localhost"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("reg.lab", "reg.lab/web:1", True),
        ("https://reg.lab", "reg.lab/web:1", True),
        ("https://reg.lab/v2/", "reg.lab/web:1", True),
        ("reg.lab", "reg.lab:5000/web:1", False),
        ("reg.lab:5000", "reg.lab:5000/web:1", True),
        ("reg.lab/team", "reg.lab/team/web:1", True),
        ("reg.lab/team", "reg.lab/teams/web:1", False),
        ("reg.lab/team/web", "reg.lab/team/web:1", True),
        ("https://index.docker.io/v1/", "nginx", True),
        ("docker.io", "team/web", True),
        ("index.docker.io", "reg.lab/web", False),
    ],
)
def test_which_entry_is_the_images(key: str, image: str, fits: bool) -> None:
    assert (found({"auths": {key: {"auth": PAIR}}}, image) is not None) == fits


def test_the_narrowest_entry_wins_and_goes_under_the_registrys_name() -> None:
    config = {"auths": {"reg.lab": {"auth": OTHER}, "reg.lab/team": {"auth": PAIR}}}
    credentials = found(config, "reg.lab/team/web:1")
    assert credentials is not None
    assert json.loads(credentials.config()) == {"auths": {"reg.lab": {"auth": PAIR}}}


def test_docker_hub_is_named_in_both_engines_ways() -> None:
    credentials = found({"auths": {"https://index.docker.io/v1/": {"auth": PAIR}}}, "nginx")
    assert credentials is not None
    assert set(json.loads(credentials.config())["auths"]) == {"docker.io", "https://index.docker.io/v1/"}


def test_user_and_password_in_plain_and_tokens() -> None:
    plain = found({"auths": {"reg.lab": {"username": "ann", "password": "pa:ss"}}}, "reg.lab/web")
    token = found({"auths": {"reg.lab": {"identitytoken": "t0ken", "email": "x"}}}, "reg.lab/web")
    assert plain is not None
    assert plain.entry == {"auth": PAIR}
    assert token is not None
    assert token.entry == {"identitytoken": "t0ken"}


def test_an_empty_entry_is_none() -> None:
    assert found({"auths": {"reg.lab": {}}}, "reg.lab/web") is None
    assert found({}, "reg.lab/web") is None
    assert found({"auths": []}, "reg.lab/web") is None


# --- helpers ---


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`docker-credential-lab` on PATH: answers for reg.lab, writes down what it was asked."""
    script = tmp_path / "bin" / "docker-credential-lab"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
read -r server
echo "$1 $server" >> {tmp_path}/asked
case $server in
reg.lab) echo '{{"ServerURL": "reg.lab", "Username": "ann", "Secret": "pa:ss"}}' ;;
cloud.lab) echo '{{"ServerURL": "cloud.lab", "Username": "<token>", "Secret": "t0ken"}}' ;;
slow.lab) exec sleep 30 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    return tmp_path / "asked"


def test_the_helper_of_the_registry_comes_before_the_store_and_the_file(helper: Path) -> None:
    config = {"credHelpers": {"reg.lab": "lab"}, "credsStore": "none", "auths": {"reg.lab": {"auth": OTHER}}}
    credentials = found(config, "reg.lab/web")
    assert credentials is not None
    assert credentials.entry == {"auth": PAIR}
    assert helper.read_text() == "get reg.lab\n"


def test_the_store_is_asked_for_the_hub_by_its_key(helper: Path) -> None:
    assert found({"credsStore": "lab"}, "nginx") is None
    assert helper.read_text() == "get https://index.docker.io/v1/\n"


def test_a_token_of_a_helper(helper: Path) -> None:
    credentials = found({"credsStore": "lab"}, "cloud.lab/web")
    assert credentials is not None
    assert credentials.entry == {"identitytoken": "t0ken"}


def test_a_helper_that_hangs_or_is_missing_is_left_out(
    helper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auth, "HELPER_S", 0.2)
    config = {"credHelpers": {"slow.lab": "lab"}, "credsStore": "absent", "auths": {"slow.lab": {"auth": OTHER}}}
    credentials = found(config, "slow.lab/web")
    assert credentials is not None
    assert credentials.entry == {"auth": OTHER}
    warnings = capsys.readouterr().err
    assert "docker-credential-lab gave no answer" in warnings
    assert "docker-credential-absent cannot be run" in warnings


# --- the Secret of a workload ---


def test_a_deployment_gets_a_secret_with_its_registrys_entry_only(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}, "else.lab": {"auth": OTHER}})
    objects = with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path)
    secret, made = objects
    assert isinstance(secret, Secret)
    assert isinstance(made, Deployment)
    validate(secret)
    assert secret.metadata.name.startswith("web-registry-")
    assert config_in(secret) == {"auths": {"reg.lab": {"auth": PAIR}}}
    assert made.spec.template.spec.image_pull_secrets == (LocalObjectReference(name=secret.metadata.name),)
    assert PAIR not in repr(secret)
    assert PAIR not in repr(Credentials("reg.lab", {"auth": PAIR}))


def test_without_credentials_nothing_is_added(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"else.lab": {"auth": OTHER}})
    wish = deployment("reg.lab/web:1")
    assert with_secrets(Shelf(), wish, home=tmp_path) == (wish,)
    assert with_secrets(Shelf(), wish, home=tmp_path / "nobody") == (wish,)


def test_fresh_credentials_keep_the_secrets_name_so_that_nothing_rolls(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}})
    secret, made = with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path)
    assert isinstance(secret, Secret)
    docker_config(tmp_path, auths={"reg.lab": {"auth": OTHER}})
    newer, again = with_secrets(Shelf(secret), deployment("reg.lab/web:1"), home=tmp_path)
    assert isinstance(newer, Secret)
    assert again == made
    assert newer.metadata.name == secret.metadata.name
    assert newer.data != secret.data


def test_a_known_secret_stays_in_use_when_somebody_without_credentials_deploys(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}})
    secret, made = with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path)
    assert isinstance(secret, Secret)
    elsewhere = tmp_path / "elsewhere"
    assert with_secrets(Shelf(secret), deployment("reg.lab/web:1"), home=elsewhere) == (made,)
    moved = deployment("else.lab/web:1")
    assert with_secrets(Shelf(secret), moved, home=elsewhere) == (moved,), "another registry, another Secret"


def test_a_manifest_that_names_its_own_pull_secrets_is_left_alone(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}})
    wish = deployment("reg.lab/web:1")
    named = auth.with_pull_secret(wish.spec, "mine")
    assert with_secrets(Shelf(), replace(wish, spec=named), home=tmp_path) == (replace(wish, spec=named),)


def test_podmans_file_is_looked_at_after_dockers(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={})
    file = tmp_path / "run" / "containers" / "auth.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"auths": {"reg.lab/team": {"auth": PAIR}}}))
    (secret,) = secrets_in(with_secrets(Shelf(), deployment("reg.lab/team/web:1"), home=tmp_path))
    assert config_in(secret) == {"auths": {"reg.lab": {"auth": PAIR}}}


def test_docker_config_and_registry_auth_file(tmp_path: Path) -> None:
    folder = tmp_path / "dc"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auths": {"reg.lab": {"auth": PAIR}}}))
    env = {"DOCKER_CONFIG": str(folder)}
    assert secrets_in(with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path, env=env))
    file = tmp_path / "given.json"
    file.write_text(json.dumps({"auths": {"reg.lab": {"auth": OTHER}}}))
    (secret,) = secrets_in(with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path, env=env, file=str(file)))
    assert config_in(secret) == {"auths": {"reg.lab": {"auth": OTHER}}}


@pytest.mark.parametrize("text", [None, "{", "[]", '{"auths": {"else.lab": {"auth": "x"}}}'])
def test_a_file_that_was_asked_for_must_serve(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "given.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidError, match=r"given\.json"):
        with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path, file=str(file))


def test_a_broken_configuration_of_the_engine_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docker_config(tmp_path).write_text("{")
    wish = deployment("reg.lab/web:1")
    assert with_secrets(Shelf(), wish, home=tmp_path) == (wish,)
    assert "are not used: is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize(("may_enter", "warned"), [(False, False), (True, True)])
def test_a_folder_of_another_user_is_no_matter_for_a_warning(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    may_enter: bool,
    warned: bool,
) -> None:
    def refuse(self: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(os, "access", lambda *_: may_enter)
    assert auth.read_config(tmp_path / "auth.json", needed=False) is None
    assert ("Permission denied" in capsys.readouterr().err) is warned


def test_the_registry_is_asked_with_the_declared_or_the_stored_secret(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}})
    shelf = Shelf()
    secret, made = with_secrets(shelf, deployment("reg.lab/web:1"), home=tmp_path)
    assert isinstance(secret, Secret)
    asyncio.run(pin_images(shelf, (secret, made)))  # type: ignore[arg-type]
    stored = Shelf(secret)
    asyncio.run(pin_images(stored, (made, deployment("free.lab/web:1"))))  # type: ignore[arg-type]
    config = base64.b64decode(secret.data[DOCKER_CONFIG_KEY])
    assert shelf.asked == [("reg.lab/web:1", config)]
    assert stored.asked == [("reg.lab/web:1", config), ("free.lab/web:1", None)]


def test_a_registry_secret_that_nobody_names_is_unused(tmp_path: Path) -> None:
    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}})
    secret, made = with_secrets(Shelf(), deployment("reg.lab/web:1"), home=tmp_path)
    assert isinstance(secret, Secret)
    assert isinstance(made, Deployment)
    stored = with_meta(secret, namespace="default")
    assert unused_secrets([stored], [made]) == ()
    assert unused_secrets([stored], []) == (stored,)


def test_dry_run_shows_no_credentials(tmp_path: Path) -> None:
    from korch.cli.main import cli

    docker_config(tmp_path, auths={"reg.lab": {"auth": PAIR}})
    env = {"HOME": str(tmp_path), "KORCH_HOME": str(tmp_path / "k")}
    result = CliRunner(env=env).invoke(cli, ["deploy", "reg.lab/web:1", "--dry-run"])
    assert result.exit_code == 0
    assert PAIR not in result.output
