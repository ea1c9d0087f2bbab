"""What `ssh` is told, and what its last words mean."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from korch.errors import InvalidError
from korch.ssh.openssh_words import Told, key_words, master_words, meaning, quoted_files, refusal
from korch.ssh.options import SshOptions

OPTIONS = SshOptions("web", "10.0.0.1", 2222, "ann", alive_count=3)
TOLD = Told(Path("/run/korch-1/1"), ("/home/ann/own", "/home/ann/known hosts"), 10.0, can_ask=False)
QUESTION = ("-p", "2222", "-o", "ProxyJump=bastion", "--", "web")


def options_of(words: tuple[str, ...]) -> dict[str, str]:
    """The first value of each option, which is the one that counts."""
    found: dict[str, str] = {}
    for word, value in pairwise(words):
        if word == "-o":
            key, _, text = value.partition("=")
            found.setdefault(key, text)
    return found


def test_a_master_is_strict_asks_nobody_and_is_not_shared() -> None:
    words = master_words(("-o", "StrictHostKeyChecking=no", "-o", "ControlPath=/x", "--", "web"), OPTIONS, TOLD)
    options = options_of(words)
    assert words[:5] == ("ssh", "-N", "-T", "-S", "/run/korch-1/1")
    assert words[-2:] == ("--", "web")
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["BatchMode"] == "yes"
    assert options["ControlMaster"] == "yes"
    assert options["ControlPersist"] == "no"
    assert options["UserKnownHostsFile"] == '"/home/ann/own" "/home/ann/known hosts"'
    assert (options["ServerAliveInterval"], options["ServerAliveCountMax"]) == ("4", "3")
    assert options["ConnectTimeout"] == "10"
    assert options_of(master_words(QUESTION, OPTIONS, replace(TOLD, can_ask=True)))["BatchMode"] == "no"


def test_the_users_own_times_count() -> None:
    mine = replace(OPTIONS, alive_interval_s=30, alive_count=2, connect_timeout_s=2.5)
    options = options_of(master_words(QUESTION, mine, TOLD))
    assert options["ServerAliveInterval"] == "30"
    assert options["ServerAliveCountMax"] == "2"
    assert options["ConnectTimeout"] == "3"


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (("-J", "bastion", "-C"), ("-C",)),
        (("-Jbastion", "-p", "22"), ("-p", "22")),
        (("-l", "-J"), ("-l", "-J")),
        (("-q", "-f", "-S", "/x", "-W", "a:1", "-v"), ("-v",)),
    ],
    ids=str,
)
def test_words_that_change_what_ssh_does_are_left_out(given: tuple[str, ...], left: tuple[str, ...]) -> None:
    through = replace(TOLD, via=Path("/run/korch-1/2"))
    words = master_words((*given, "--", "-J"), OPTIONS, through)
    assert words[-len(left) - 2 :] == (*left, "--", "-J")


def test_the_way_through_a_jump_host_is_its_one_connection() -> None:
    words = master_words(("--", "web"), OPTIONS, replace(TOLD, via=Path("/run/korch-1/2")))
    assert options_of(words)["ProxyCommand"].split()[-5:] == [
        "-S",
        "/run/korch-1/2",
        "-W",
        "'[%h]:%p'",
        "korch-jump.invalid",
    ]


@pytest.mark.parametrize("name", ["a;b", "$(id)", "a b", "`x`", "a'b", ""])
def test_a_host_name_that_a_shell_would_act_on_goes_through_no_jump_host(name: str) -> None:
    with pytest.raises(InvalidError, match="unsafe"):
        master_words(QUESTION, replace(OPTIONS, hostname=name), replace(TOLD, via=Path("/run/x")))


def test_fetching_a_key_logs_nobody_in() -> None:
    words = key_words(QUESTION, OPTIONS, file=Path("/run/k"), timeout_s=3.2, types=("ssh-ed25519", "ssh-rsa"), via=None)
    options = options_of(words)
    assert options["PreferredAuthentications"] == "none"
    assert options["UserKnownHostsFile"] == '"/run/k"'
    assert options["GlobalKnownHostsFile"] == "none"
    assert options["HostKeyAlgorithms"] == "ssh-ed25519,ssh-rsa"
    assert options["ConnectTimeout"] == "4"
    assert words[-3:] == ("--", "web", "exit")


@given(st.lists(st.text(alphabet='ab /"\\%$', min_size=1, max_size=8), max_size=4))
def test_file_names_cannot_leave_their_quotes(files: list[str]) -> None:
    text = quoted_files(files).replace("\\\\", "").replace('\\"', "")
    assert text == "none" or text.count('"') == 2 * len(files)


SAYINGS = {
    "unverified": ("No ED25519 host key is known for web and you have requested strict checking.", "unverified"),
    "revoked": ("Host key verification failed.", "unverified"),
    "refused": ("ann@10.0.0.1: Permission denied (publickey,password).", "refused login"),
    "too many": ("Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures", "refused login"),
    "kex": (
        "Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found. Their offer: sntrup761",
        "no common",
    ),
    "jump": ("Stdio forwarding request failed: Session open refused by peer", "no jump"),
    "name": ("ssh: Could not resolve hostname web.invalid: Name or service not known", "no name"),
    "refused tcp": ("ssh: connect to host 10.0.0.1 port 22: Connection refused", "no connection"),
    "slow": ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", "no answer"),
    "silent": ("Connection timed out during banner exchange", "no answer"),
    "closed": ("kex_exchange_identification: Connection closed by remote host", "dropped"),
    "reset": ("Connection reset by 10.0.0.1 port 22", "dropped"),
    "strange": ("Bad owner or permissions on /home/ann/.ssh/config", "other"),
}


@pytest.mark.parametrize("saying", SAYINGS)
def test_last_words_are_understood(saying: str) -> None:
    line, kind = SAYINGS[saying]
    said = meaning(("Warning: Permanently added 'web' (ED25519) to the list of known hosts.", line))
    assert said.kind == kind
    assert line in said.text


def test_their_details_are_kept() -> None:
    assert meaning((SAYINGS["refused"][0],)).more == ("publickey,password",)
    assert meaning((SAYINGS["kex"][0],)).more == ("key exchange method", "sntrup761")
    assert meaning((SAYINGS["refused tcp"][0],)).more == ("Connection refused",)
    assert meaning(()).kind == "other"


def test_a_proxys_words_come_before_those_of_ssh() -> None:
    said = meaning(("no such tunnel", "kex_exchange_identification: Connection closed by remote host"))
    assert said.text.startswith("no such tunnel; ")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("channel 2: open failed: administratively prohibited: open failed", (1, "open failed")),
        ("channel 12: open failed: connect failed: Connection refused", (2, "Connection refused")),
        ("channel 2: open failed: resource shortage", (4, "resource shortage")),
        ('Authenticated to web ([10.0.0.1]:22) using "publickey".', None),
    ],
)
def test_a_refused_channel_is_read(line: str, found: tuple[int, str] | None) -> None:
    assert refusal(line) == found
