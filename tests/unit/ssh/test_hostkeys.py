"""known_hosts: read as OpenSSH reads it, judged, and added to."""

import base64
import hashlib
import hmac
import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.errors import HostKeyChangedError, HostKeyUnknownError, HostRefusedError, StoreError
from korch.ssh.hostkeys import HostKey, KnownHost, KnownHosts, algorithms, judge, parse_known_hosts

KEYS = {
    kind: HostKey(kind, len(kind).to_bytes(4, "big") + kind.encode() + b"\0\0\0\x20" + bytes(32))
    for kind in ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256")
}
ED, RSA, EC = KEYS.values()
OTHER = HostKey("ssh-ed25519", ED.blob[:-1] + b"\1")


def text(key: HostKey) -> str:
    return f"{key.type} {base64.b64encode(key.blob).decode()}"


def known(*lines: str) -> list[KnownHost]:
    return parse_known_hosts("\n".join(lines), "/k")


def hashed(name: str) -> str:
    salt = bytes(range(20))
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("web", "web", True),
        ("web,10.0.0.1", "10.0.0.1", True),
        ("WEB", "web", True),
        ("web", "web.lab", False),
        ("*.lab", "web.lab", True),
        ("*.lab,!db.lab", "db.lab", False),
        ("!db.lab,*.lab", "db.lab", False),
        ("!web", "db", False),
        ("w?b", "web", True),
        ("[web]:2222", "[web]:2222", True),
        ("[web]:2222", "web", False),
        ("[*.lab]:2222", "[web.lab]:2222", True),
        ("[web]:*", "[web]:22022", True),
        ("w[e]b", "web", False),
        (hashed("web"), "web", True),
        (hashed("web"), "db", False),
        ("|1|broken", "web", False),
        ("|1|AA|BB|CC", "web", False),
    ],
)
def test_which_host_a_line_is_for(names: str, name: str, expected: bool) -> None:
    assert [line.is_for(name) for line in known(f"{names} {text(ED)}")] == [expected]


def test_lines_that_cannot_be_read_are_skipped_and_keep_their_numbers() -> None:
    lines = known("# comment", "", "web", "web ssh-ed25519 !!!", "@odd web " + text(ED), f"web {text(ED)} ann@desk")
    assert [(line.place, line.key) for line in lines] == [("/k:6", ED)]


NAMES = st.sampled_from(["web", "db", "web.lab", "10.0.0.1", "[web]:2222", "[10.0.0.1]:22022"])
PATTERNS = st.one_of(
    NAMES, NAMES.map(hashed), st.sampled_from(["*", "*.lab", "w?b", "web,db", "*,!db", "[web]:*", "!web", "[*]:2222"])
)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
@given(st.lists(PATTERNS, max_size=6), NAMES)
@settings(max_examples=60, deadline=None)
def test_lines_are_found_as_ssh_keygen_finds_them(patterns: list[str], name: str) -> None:
    lines = [f"{pattern} {text(ED)}" for pattern in patterns]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "known_hosts"
        path.write_text("".join(f"{line}\n" for line in lines))
        found = subprocess.run(["ssh-keygen", "-F", name, "-f", path], capture_output=True, text=True, check=False)
    oracle = [int(number) for number in re.findall(r"^# Host .* found: line (\d+)", found.stdout, re.MULTILINE)]
    assert [int(line.place.split(":")[1]) for line in known(*lines) if line.is_for(name)] == oracle


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "k.pub"], capture_output=True, text=True, check=True).stdout
    (line,) = known("web " + (tmp_path / "k.pub").read_text())
    assert shown.split()[1] == line.key.fingerprint


@pytest.mark.parametrize(
    ("lines", "verdict", "place"),
    [
        ([], "new", None),
        ([f"web {text(ED)}"], "yes", "/k:1"),
        ([f"web {text(OTHER)}", f"web {text(ED)}"], "yes", "/k:2"),
        ([f"web {text(RSA)}", f"web {text(OTHER)}"], "changed", "/k:2"),
        ([f"web {text(RSA)}"], "changed", "/k:1"),
        ([f"web {text(ED)}", f"@revoked * {text(ED)}"], "revoked", "/k:2"),
        ([f"@revoked * {text(OTHER)}", f"web {text(ED)}"], "yes", "/k:2"),
        ([f"@cert-authority * {text(RSA)}"], "new", "/k:1"),
        ([f"@cert-authority * {text(ED)}"], "new", "/k:1"),
    ],
)
def test_a_key_is_judged(lines: list[str], verdict: str, place: str | None) -> None:
    found = judge(known(*lines), ED)
    assert (found.is_known, found.because and found.because.place) == (verdict, place)


def test_known_kinds_of_keys_are_asked_for_first() -> None:
    assert algorithms(known())[0] == "ssh-ed25519"
    assert algorithms(known(f"web {text(RSA)}"))[:3] == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519")
    assert algorithms(known(f"web {text(RSA)}", f"web {text(EC)}"))[0] == "ecdsa-sha2-nistp256"
    assert algorithms(known(f"@revoked web {text(RSA)}"))[0] == "ssh-ed25519"
    assert "ssh-rsa" not in algorithms(known())  # SHA-1


@pytest.fixture
def files(tmp_path: Path) -> KnownHosts:
    return KnownHosts(tmp_path / "c" / "known_hosts")


def check(files: KnownHosts, name: str, key: HostKey, *paths: str, accept_new: bool = False) -> None:
    files.check("n1", name, paths, key, accept_new=accept_new)


def test_an_accepted_key_is_kept_privately(files: KnownHosts) -> None:
    with pytest.raises(HostKeyUnknownError):
        check(files, "web", ED)
    check(files, "web", ED, accept_new=True)
    check(files, "web", ED)
    assert stat.S_IMODE(files.own.stat().st_mode) == 0o600
    with pytest.raises(HostKeyChangedError):
        check(files, "web", OTHER, accept_new=True)


def test_a_key_for_another_port_is_another_matter(files: KnownHosts, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"web {text(OTHER)}\n")
    with pytest.raises(HostKeyUnknownError):
        check(files, "[web]:2222", ED, str(users))
    check(files, "[web]:2222", OTHER, str(users))  # the same machine, as OpenSSH takes it
    check(files, "[web]:2222", ED, str(users), accept_new=True)
    check(files, "[web]:2222", ED, str(users))


def test_a_revoked_key_cannot_be_accepted(files: KnownHosts, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"@revoked * {text(ED)}\n")
    with pytest.raises(HostRefusedError, match="revoked"):
        check(files, "web", ED, str(users), accept_new=True)


def test_any_file_may_know_the_key(files: KnownHosts, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"web {text(OTHER)}\n")
    files.replace("web", ED)
    check(files, "web", ED, str(users), str(tmp_path / "missing"), str(tmp_path))
    check(files, "web", OTHER, str(users))


def test_replacing_forgets_only_that_host(files: KnownHosts) -> None:
    for name, key in (("web", OTHER), ("web", RSA), ("db", OTHER)):
        files.add(name, key)
    files.replace("web", ED)
    check(files, "web", ED)
    check(files, "db", OTHER)
    with pytest.raises(HostKeyChangedError):
        check(files, "web", RSA)


def test_a_changed_file_is_read_again(files: KnownHosts, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("")
    with pytest.raises(HostKeyUnknownError):
        check(files, "web", ED, str(users))
    users.write_text(f"web {text(ED)}\n")
    check(files, "web", ED, str(users))


def test_many_writers_lose_nothing(files: KnownHosts) -> None:
    writers = [threading.Thread(target=KnownHosts(files.own).add, args=(f"n{n}", ED)) for n in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for number in range(20):
        check(files, f"n{number}", ED)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("in the way")
    with pytest.raises(StoreError, match="web"):
        KnownHosts(tmp_path / "c" / "known_hosts").add("web", ED)
    assert os.path.isfile(tmp_path / "c")
