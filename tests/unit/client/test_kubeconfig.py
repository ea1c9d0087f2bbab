"""Kubeconfigs as people have them: several files, contexts, paths beside them, and mistakes that are told by name."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from korch.client.kubeconfig import access_of, config_paths, read_config
from korch.errors import InvalidError, KorchError, NotFoundError

URL = "https://m1:6443"


def config(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": URL}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "current-context": "x",
    }
    return {**found, **changes}


def written(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def user(**value: Any) -> list[dict[str, Any]]:
    return [{"name": "u", "user": value}]


def cluster(**value: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "cluster": {"server": URL, **value}}]


def test_a_context_says_where_who_and_in_which_namespace(tmp_path: Path) -> None:
    found = access_of(read_config([written(tmp_path / "k", config())], must_exist=True))
    assert (found.server, found.namespace, found.token) == (URL, "shop", "secret")
    assert found.source == f'{tmp_path / "k"}, context "x"'
    assert "secret" not in repr(found)


def test_an_option_goes_before_what_the_file_says(tmp_path: Path) -> None:
    other = [*config()["contexts"], {"name": "y", "context": {"cluster": "c", "user": "u"}}]
    read = read_config([written(tmp_path / "k", config(contexts=other))], must_exist=True)
    found = access_of(read, context="y", server="https://[::1]:7000/")
    assert (found.server, found.namespace) == ("https://[::1]:7000", "")


def test_of_several_files_the_first_word_counts(tmp_path: Path) -> None:
    first = written(tmp_path / "a", {"users": user(token="first"), "current-context": ""})
    second = written(tmp_path / "b", config())
    empty = written(tmp_path / "c", "")
    paths = config_paths("", {"KUBECONFIG": f"{first}::{tmp_path / 'missing'}:{empty}:{second}"})
    assert access_of(read_config(paths, must_exist=False)).token == "first"
    with pytest.raises(NotFoundError, match="missing"):
        read_config(paths, must_exist=True)


def test_without_a_word_it_is_where_kubectl_looks() -> None:
    assert config_paths("", {}) == (Path("~/.kube/config").expanduser(),)
    assert config_paths("./k", {"KUBECONFIG": "/other"}) == (Path("k"),)


def test_files_stand_beside_the_kubeconfig(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(b"ca")
    (folder / "token").write_text("from a file\n".replace(" ", "-"))
    data = config(clusters=cluster(**{"certificate-authority": "ca.pem"}), users=user(tokenFile="token"))
    found = access_of(read_config([written(folder / "k", data)], must_exist=True))
    assert (found.authority, found.token) == (b"ca", "from-a-file")


def test_data_goes_before_a_file(tmp_path: Path) -> None:
    text = base64.b64encode(b"here").decode()
    both = {"certificate-authority": "nowhere.pem", "certificate-authority-data": text}
    data = config(clusters=cluster(**both, **{"tls-server-name": "m", "insecure-skip-tls-verify": True}))
    found = access_of(read_config([written(tmp_path / "k", data)], must_exist=True))
    assert (found.authority, found.server_name, found.insecure) == (b"here", "m", True)


MISTAKES = {
    "no YAML": ("a: [", "k is not YAML"),
    "a list": ("[]\n- a\n", "k is not YAML"),
    "another kind": ({"kind": "Pod"}, "k is no kubeconfig"),
    "a number": ("7", "k is no kubeconfig"),
    "clusters": (config(clusters={"c": 1}), "k: clusters is not a list of entries"),
    "an entry": (config(users=["u"]), "k: users is not a list of entries"),
    "no name": (config(users=[{"user": {}}]), "k: users[0] has no name"),
    "no mapping": (config(users=[{"name": "u", "user": "x"}]), 'k: users[0] "u": user is not a mapping'),
    "no context": (config(**{"current-context": None}), "k: no current-context is set"),
    "current": (config(**{"current-context": 3}), "k: current-context is not text"),
    "unknown context": (config(**{"current-context": "z"}), 'k: current-context "z": there is no context "z"'),
    "unknown user": (config(users=[]), 'k: context "x": there is no user "u"'),
    "no user": (config(contexts=[{"name": "x", "context": {"cluster": "c"}}]), 'k: context "x": user is missing'),
    "no server": (config(clusters=[{"name": "c", "cluster": {}}]), 'k: cluster "c": server: "" is no address'),
    "plain HTTP": (config(clusters=cluster(server="http://m1")), 'server: "http://m1" is no address of an API'),
    "a path": (config(clusters=cluster(server="https://m1/k")), 'server: "https://m1/k" is no address'),
    "a port": (config(clusters=cluster(server="https://m1:x")), 'server: "https://m1:x" is no address'),
    "a proxy": (config(clusters=cluster(**{"proxy-url": "http://p"})), 'k: cluster "c": proxy-url http://p'),
    "base64": (config(clusters=cluster(**{"certificate-authority-data": "%"})), "certificate-authority-data is not"),
    "no file": (config(clusters=cluster(**{"certificate-authority": "ca"})), "certificate-authority ca: no such file"),
    "a flag": (config(clusters=cluster(**{"insecure-skip-tls-verify": "no"})), "is neither true nor false"),
    "no text": (config(users=user(token=5)), 'k: user "u": token is not text'),
    "a program": (config(users=user(exec={"command": "x"})), 'k: user "u": exec: korch knows certificates and tokens'),
    "a password": (config(users=user(username="x", password="y")), 'k: user "u": username: korch knows'),
    "no key": (config(users=user(**{"client-certificate-data": "YQ=="})), 'k: user "u": client-key is missing'),
    "nothing": (config(users=user()), 'k: user "u": no client-certificate and no token'),
    "two lines": (config(users=user(token="a\nb")), 'k: user "u": token is none'),
}


@pytest.mark.parametrize(("data", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_file_and_key(tmp_path: Path, data: Any, says: str) -> None:
    path = written(tmp_path / "k", data)
    with pytest.raises(KorchError) as caught:
        access_of(read_config([path], must_exist=True))
    assert re.search(re.escape(says), str(caught.value)), str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"clusters": cluster(**{"certificate-authority-data": "YQ=="})}, "certificate-authority holds no certificate"),
        (
            {"users": user(**{"client-certificate-data": "YQ==", "client-key-data": "YQ=="})},
            "client-certificate and client-key do not belong together",
        ),
    ],
    ids=["authority", "pair"],
)
def test_what_is_no_certificate_is_told(tmp_path: Path, values: Any, says: str) -> None:
    found = access_of(read_config([written(tmp_path / "k", config(**values))], must_exist=True))
    with pytest.raises(InvalidError, match=says):
        found.tls()
