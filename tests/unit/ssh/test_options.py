"""`ssh -G`'s answers as values."""

import asyncio

import pytest

from korch.errors import InvalidError, SetupError
from korch.inventory.model import Host
from korch.ssh.options import Local, OptionsReader, SshOptions, jump_question, parse_options, question

LOCAL = Local(
    home="/home/ann", user="ann", uid=1000, hostname="desk.lab", environ={"SSH_AUTH_SOCK": "/run/agent", "K": "v"}
)


def parsed(text: str, asked: str = "web", existing: tuple[str, ...] = ()) -> SshOptions:
    return parse_options(text, asked, LOCAL, existing.__contains__)


def test_an_empty_answer_means_openssh_defaults() -> None:
    options = parsed("")
    assert (options.hostname, options.port, options.user, options.agent) == ("web", 22, "ann", "/run/agent")
    assert options.key_name == "web"
    assert not options.new_keys


def test_names_ports_and_keys() -> None:
    options = parsed("hostname 10.0.0.1\nport 2222\nuser root\nidentityfile ~/.ssh/a\nidentityfile %d/%r-%h.%p\n")
    assert (options.hostname, options.port, options.user) == ("10.0.0.1", 2222, "root")
    assert options.identity_files == ("/home/ann/.ssh/a", "/home/ann/root-10.0.0.1.2222")
    assert options.key_name == "[10.0.0.1]:2222"
    assert options.login == "root@10.0.0.1 port 2222"


def test_an_alias_names_the_host_key() -> None:
    assert parsed("hostname 10.0.0.1\nport 2222\nhostkeyalias Web\n").key_name == "web"


@pytest.mark.parametrize(
    ("line", "agent"),
    [
        ("identityagent none", None),
        ("identityagent SSH_AUTH_SOCK", "/run/agent"),
        ("identityagent $K", "v"),
        ("identityagent ${K}/x", "v/x"),
        ("identityagent ~/with space/%u.sock", "/home/ann/with space/ann.sock"),
    ],
)
def test_the_agents_socket(line: str, agent: str | None) -> None:
    assert parsed(line).agent == agent


def test_files_with_spaces_are_told_apart_by_what_exists() -> None:
    text = "userknownhostsfile /k 1 /k 2 /dev/null\nglobalknownhostsfile none\n"
    assert parsed(text, existing=("/k 1", "/k 2")).known_hosts == ("/k 1", "/k 2")
    assert parsed(text).known_hosts == ("/k", "1", "/k", "2")


@pytest.mark.parametrize(
    ("value", "new_keys"), [("ask", False), ("true", False), ("accept-new", True), ("false", True)]
)
def test_whether_new_keys_are_taken(value: str, new_keys: bool) -> None:
    assert parsed(f"stricthostkeychecking {value}\n").new_keys is new_keys


def test_jumps_and_proxies() -> None:
    assert parsed("proxyjump a@b:22,c\n").jumps == ("a@b:22", "c")
    assert parsed("proxyjump none\nproxycommand none\n").jumps == ()
    options = parsed("hostname h1\nproxycommand nc -X connect %h %p %% %r\n")
    assert options.proxy_command == "nc -X connect h1 22 % ann"
    assert options.proxy_template == "nc -X connect %h %p %% %r"


@pytest.mark.parametrize("name", ["$(id)", "a;b", "`x`", "a b"])
def test_a_name_that_a_shell_would_act_on_is_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="unsafe"):
        parsed(f"hostname {name}\nproxycommand nc %h %p\n")


def test_methods_are_those_that_are_allowed_and_preferred() -> None:
    assert parsed("passwordauthentication no\n").auth_methods == {"publickey", "keyboard-interactive"}
    assert parsed("preferredauthentications publickey,hostbased\n").auth_methods == {"publickey"}


def test_times() -> None:
    options = parsed("connecttimeout 7\nserveraliveinterval 15\nserveralivecountmax 2\n")
    assert (options.connect_timeout_s, options.alive_interval_s, options.alive_count) == (7.0, 15, 2)
    assert parsed("connecttimeout none\n").connect_timeout_s is None


def test_the_question_about_a_host() -> None:
    host = Host("n1", "-oProxyCommand=evil", 22, "root", "/k", ("-o", "X=y"))
    assert question(host) == ("-p", "22", "-l", "root", "-i", "/k", "-o", "X=y", "--", "-oProxyCommand=evil")
    assert question(Host("n1", "web")) == ("--", "web")


@pytest.mark.parametrize(
    ("jumps", "words"),
    [
        (("b",), ("--", "b")),
        (("ann@b:2222",), ("-p", "2222", "-l", "ann", "--", "b")),
        (("a", "b"), ("-J", "a", "--", "b")),
        (("ssh://ann@b:2222",), ("-p", "2222", "-l", "ann", "--", "b")),
        (("[::1]:22",), ("-p", "22", "--", "::1")),
        (("fe80::1",), ("--", "fe80::1")),
    ],
    ids=str,
)
def test_the_question_about_a_jump_host(jumps: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert jump_question(jumps, ("-p", "9", "-o", "X=y", "--", "web")) == words
    assert jump_question(jumps, ("-F", "/old", "-F/c", "--", "web")) == ("-F", "/c", *words)


def test_openssh_missing_is_said() -> None:
    async def ask() -> None:
        reader = OptionsReader("korch-no-such-ssh")
        try:
            await reader.read(("--", "web"), "n1")
        finally:
            reader.close()

    with pytest.raises(SetupError) as caught:
        asyncio.run(ask())
    assert "openssh-client" in caught.value.hint


def test_values_are_values() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        parsed("").port = 23  # type: ignore[misc]
