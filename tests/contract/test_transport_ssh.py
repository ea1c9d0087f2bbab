"""What is special to SSH: who may log in, whose host it is, ways through other hosts, and hosts that stop answering."""

import asyncio
import contextlib
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from korch.engines.base import Command, Script
from korch.errors import (
    AuthFailedError,
    HostKeyChangedError,
    HostKeyRevokedError,
    HostKeyUnknownError,
    HostUnreachableError,
    InvalidError,
    KorchError,
    NoCommonAlgorithmError,
    NoPermissionError,
)
from korch.inventory.model import Host
from korch.master.gathering import each
from korch.settings import Settings
from korch.ssh.base import Result, Transport
from korch.ssh.connect import Connector
from tests.unit.ssh.sshd import (
    TRANSPORTS,
    Bench,
    Chosen,
    Sshd,
    a_host,
    bench,
    children,
    free_port,
    make_key,
    needs_sshd,
    public,
    sshd,
)

pytestmark = needs_sshd

HELLO = Command(("echo", "hello"))
LONG = Command(("sh", "-c", "touch ~/began; exec sleep 60"), timeout_s=60)


@pytest.fixture(autouse=True, params=TRANSPORTS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs once with each transport."""
    monkeypatch.setattr(Chosen, "transport", request.param)
    return str(request.param)


def hello(home: Path, host: Host, **kwargs: str) -> bytes:
    """What HELLO says on the host."""
    with bench(home, host, **kwargs) as made:
        result: Result = made.runner.run(made.transport.run(HELLO))
        return result.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server with three host keys and the default limits."""
    with sshd(tmp_path_factory.mktemp("sshd"), host_keys=("ed25519", "rsa", "ecdsa")) as made:
        yield made


# --- host keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hashed"])
def test_a_host_known_by_any_of_its_keys_is_accepted(server: Sshd, tmp_path: Path, kind: int, hashed: bool) -> None:
    known = tmp_path / "known"
    other = public(make_key(tmp_path / "other", "rsa"))
    known.write_text(f"elsewhere,10.0.0.1 {other}\n{server.name} {public(server.host_keys[kind])}\n")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert hello(tmp_path, server.host(known=known)) == b"hello\n"


def test_one_strange_line_concerns_nobody_else(server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    authority = public(make_key(tmp_path / "ca"))
    known.write_text(f"@cert-authority *.lab {authority}\n@what x y z\n|1|bad\n{server.known_hosts.read_text()}")
    assert hello(tmp_path, server.host(known=known)) == b"hello\n"


def test_an_unknown_key_is_shown_with_the_command_that_accepts_it(server: Sshd, tmp_path: Path) -> None:
    with pytest.raises(HostKeyUnknownError) as caught:
        hello(tmp_path, server.host(known=tmp_path / "none"))
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{server.host_keys[0]}.pub"], check=True, capture_output=True, text=True
    ).stdout
    assert "n1" in str(caught.value)
    assert "ED25519" in str(caught.value)
    assert shown.split()[1] in str(caught.value)
    assert "korch node trust n1" in caught.value.hint


def test_a_certificate_authority_alone_does_not_make_a_key_known(server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"@cert-authority [127.0.0.1]:* {public(make_key(tmp_path / 'ca'))}\n")
    with pytest.raises(HostKeyUnknownError, match="certificate authority"):
        hello(tmp_path, server.host(known=known))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_changed_key_names_the_line_of_the_old_one(server: Sshd, tmp_path: Path, kind: str) -> None:
    known = tmp_path / "known"
    known.write_text(f"# comment\n{server.name} {public(make_key(tmp_path / 'old', kind))}\n")
    with pytest.raises(HostKeyChangedError, match=re.escape(f"{known}:2")) as caught:
        hello(tmp_path, server.host(known=known), host_key="accept-new")
    assert "korch node trust n1" in caught.value.hint


def test_a_revoked_key_is_refused_though_it_is_known(server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    revoked = "".join(f"@revoked * {public(key)}\n" for key in server.host_keys)
    known.write_text(server.known_hosts.read_text() + revoked)
    with pytest.raises(HostKeyRevokedError, match=r"revoked .*known:4"):
        hello(tmp_path, server.host(known=known))


def test_accepting_new_keys_remembers_them_privately(server: Sshd, tmp_path: Path) -> None:
    host = server.host(known=tmp_path / "none")
    assert hello(tmp_path, host, host_key="accept-new") == b"hello\n"
    own = tmp_path / "clusters/test/known_hosts"
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert hello(tmp_path, host) == b"hello\n"
    own.write_text(f"{server.name} {public(make_key(tmp_path / 'old'))}\n")
    with pytest.raises(HostKeyChangedError):
        hello(tmp_path, host, host_key="accept-new")


def test_a_configuration_that_accepts_new_keys_is_obeyed_once(server: Sshd, tmp_path: Path) -> None:
    host = server.host("n1", "-o", "StrictHostKeyChecking=no", known=tmp_path / "none")
    assert hello(tmp_path, host) == b"hello\n"
    assert server.name in (tmp_path / "clusters/test/known_hosts").read_text()


def test_strict_is_strict_whatever_the_configuration_accepts(server: Sshd, tmp_path: Path) -> None:
    host = server.host("n1", "-o", "StrictHostKeyChecking=no", known=tmp_path / "none")
    with pytest.raises(HostKeyUnknownError):
        hello(tmp_path, host, host_key="strict")
    assert not (tmp_path / "clusters/test/known_hosts").exists()


def test_a_key_is_bound_to_the_name_that_the_host_goes_by(server: Sshd, tmp_path: Path) -> None:
    """As with machines of Vagrant: one made anew at the same address goes by another name."""

    def machine(own_id: int) -> Host:
        careless = ("-o", "StrictHostKeyChecking=no", "-o", f"HostKeyAlias=vagrant-n1-{own_id}")
        return server.host("n1", *careless, known=tmp_path / "none")

    assert hello(tmp_path, machine(1)) == b"hello\n"
    own = tmp_path / "clusters/test/known_hosts"
    own.write_text(f"vagrant-n1-1 {public(make_key(tmp_path / 'old'))}\n")
    with pytest.raises(HostKeyChangedError):
        hello(tmp_path, machine(1))
    assert hello(tmp_path, machine(2)) == b"hello\n"


def test_trusting_a_shown_key_replaces_the_old_one(server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"{server.name} {public(make_key(tmp_path / 'old'))}\n")
    host = server.host(known=known)
    with bench(tmp_path, host) as made:
        shown = made.runner.run(made.connector.shown_key(host))
        assert (shown.host, shown.name, shown.is_known) == ("n1", server.name, False)
        made.connector.trust(shown)
        assert made.runner.run(made.transport.run(HELLO)).status == 0
        assert made.runner.run(made.connector.shown_key(host)).is_known


# --- login -----------------------------------------------------------------------------------------------------------


def test_a_refused_key_is_named_with_user_and_host(server: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "wrong")
    with pytest.raises(AuthFailedError) as caught:
        hello(tmp_path, server.host(key=key))
    assert all(word in str(caught.value) for word in ("n1", "127.0.0.1", str(key)))
    assert "ssh " in caught.value.hint


def test_a_missing_key_file_is_named(server: Sshd, tmp_path: Path) -> None:
    with pytest.raises(AuthFailedError, match=f"{tmp_path}/none not accessible"):
        hello(tmp_path, server.host("n1", "-o", f"IdentityFile={make_key(tmp_path / 'wrong')}", key=tmp_path / "none"))


def test_an_encrypted_key_without_a_terminal_is_named(server: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="sesame")
    with pytest.raises(AuthFailedError, match="encrypted and there is no terminal") as caught:
        hello(tmp_path, server.host(key=key))
    assert caught.value.hint == f"Put the key into the agent first: ssh-add {key}"


def by_host(transports: list[Transport]) -> dict[str, Transport]:
    return {transport.host: transport for transport in transports}


def asking(answers: list[str], tmp_path: Path, hosts: list[Host]) -> tuple[list[str], dict[str, Result | KorchError]]:
    """The questions asked and each host's result when a person types `answers`."""
    questions: list[str] = []

    def prompt(question: str) -> str:
        questions.append(question)
        return answers.pop(0) if answers else ""

    async def all_hosts() -> dict[str, Result | KorchError]:
        async with Connector(Settings(tmp_path, "test"), prompt=prompt) as connector:
            transports = [connector.transport_for(host) for host in hosts]
            try:
                return await each(by_host(transports), lambda _, transport: transport.run(HELLO))
            finally:
                for transport in transports:
                    await transport.close()

    return questions, asyncio.run(all_hosts())


def authorize(server: Sshd, key: Path) -> None:
    with open(server.folder / "authorized_keys", "a") as file:
        file.write(public(key) + "\n")


def test_a_passphrase_is_asked_for_once_for_all_hosts(server: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="sesame")
    authorize(server, key)
    hosts = [server.host(f"n{number}", key=key) for number in range(3)]
    questions, results = asking(["wrong", "sesame"], tmp_path, hosts)
    assert all(result == Result(0, b"hello\n", b"") for result in results.values())
    assert len(questions) == 2
    assert str(key) in questions[0]


def test_a_wrong_password_is_asked_for_three_times(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", "PasswordAuthentication yes", "PubkeyAuthentication no") as server:
        questions, results = asking(["a", "b", "c", "d"], tmp_path, [server.host()])
        assert isinstance(results["n1"], AuthFailedError)
        assert len(questions) == 3
        assert "127.0.0.1" in questions[0]


def test_a_host_that_wants_a_password_is_refused_without_a_terminal(tmp_path: Path) -> None:
    config = ("PasswordAuthentication yes", "PubkeyAuthentication no")
    with sshd(tmp_path / "sshd", *config) as server, pytest.raises(AuthFailedError, match="the host wants password"):
        hello(tmp_path, server.host())


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """An ssh-agent that holds the keys."""
    path = folder / "agent socket"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(["ssh-add", "-q", *keys], env=env, check=True)
        yield path
    finally:
        process.terminate()
        process.wait()


def test_the_agent_that_the_configuration_names_is_used(server: Sshd, tmp_path: Path) -> None:
    with agent(tmp_path, server.user_key) as path:
        options = ("-o", f'IdentityAgent="{path}"', "-o", "IdentitiesOnly=no")
        assert hello(tmp_path, server.host("n1", *options, key=tmp_path / "none")) == b"hello\n"
        only = ("-o", f'IdentityAgent="{path}"', "-o", "IdentitiesOnly=yes")
        with pytest.raises(AuthFailedError):
            hello(tmp_path, server.host("n1", *only, key=tmp_path / "none"))
        (tmp_path / "some.pub").write_text(public(server.user_key))  # only the public half is at hand
        assert hello(tmp_path, server.host("n1", *only, key=tmp_path / "some.pub")) == b"hello\n"


def test_an_encrypted_key_in_the_agent_needs_no_passphrase(server: Sshd, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    authorize(server, key)
    with agent(tmp_path, key) as path:
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "sesame", "-f", key], check=True, capture_output=True)
        host = server.host("n1", "-o", f'IdentityAgent="{path}"', key=key)
        assert hello(tmp_path, host) == b"hello\n"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_user_keys_work(server: Sshd, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / kind, kind)
    authorize(server, key)
    assert hello(tmp_path, server.host(key=key)) == b"hello\n"


def test_a_user_certificate_is_shown(tmp_path: Path) -> None:
    authority = make_key(tmp_path / "ca")
    with sshd(tmp_path / "sshd", f"TrustedUserCAKeys {authority}.pub") as server:
        key = make_key(tmp_path / "id")
        user = server.host().user or ""
        subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "x", "-n", user, f"{key}.pub"], check=True)
        assert hello(tmp_path, server.host(key=key)) == b"hello\n"


# --- OpenSSH's configuration -----------------------------------------------------------------------------------------


def test_include_and_match_mean_what_openssh_says(server: Sshd, tmp_path: Path) -> None:
    included = tmp_path / "more config"
    included.write_text(f"Host web\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityFile {server.user_key}\n")
    config = tmp_path / "config"
    config.write_text(
        f'Include "{included}"\n'
        f'Match host 127.0.0.1 exec "true"\n  UserKnownHostsFile {server.known_hosts}\n'
        "Host *\n  UserKnownHostsFile none\n  IdentityAgent none\n"
    )
    assert hello(tmp_path, a_host("web", "web", ssh_args=("-F", str(config)))) == b"hello\n"


def test_a_broken_configuration_is_the_users_to_mend(server: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Hots web\n")
    with pytest.raises(InvalidError, match=r"n1: ssh cannot read its configuration.*config") as caught:
        hello(tmp_path, a_host("n1", "web", ssh_args=("-F", str(config))))
    assert "ssh -T -G" in caught.value.hint


# --- other ways ------------------------------------------------------------------------------------------------------


def bastion_config(bastion: Sshd, folder: Path, *more: str) -> Path:
    """A configuration that knows `bastion`, and what `more` says."""
    config = folder / "ssh_config"
    config.write_text(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n  IdentityFile {bastion.user_key}\n"
        f"  UserKnownHostsFile {bastion.known_hosts}\n  ProxyJump none\n"
        "Host *\n  IdentityAgent none\n  IdentitiesOnly yes\n" + "".join(f"  {line}\n" for line in more)
    )
    return config


def test_fifty_nodes_behind_one_bastion(tmp_path: Path) -> None:
    """Every sshd has its default MaxStartups; the bastion sees one connection."""
    with contextlib.ExitStack() as stack:
        bastion = stack.enter_context(sshd(tmp_path / "bastion"))
        nodes = [stack.enter_context(sshd(tmp_path / f"node{number}")) for number in range(50)]
        config = bastion_config(bastion, tmp_path)
        hosts = [node.host(f"n{node.port}", "-F", str(config), "-J", "bastion") for node in nodes]

        async def everyone() -> dict[str, Result | KorchError]:
            async with Connector(Settings(tmp_path, "test")) as connector:
                transports = [connector.transport_for(host) for host in hosts]
                try:
                    return await each(by_host(transports), lambda _, transport: transport.run(HELLO))
                finally:
                    await asyncio.gather(*(transport.close() for transport in transports))

        results = asyncio.run(everyone())
        assert [name for name, result in results.items() if result != Result(0, b"hello\n", b"")] == []
        assert len(results) == len(nodes)
        assert bastion.log().count("Accepted publickey") == 1


def test_much_data_goes_through_a_bastion_both_ways(tmp_path: Path) -> None:
    with sshd(tmp_path / "bastion") as bastion, sshd(tmp_path / "node") as node:
        config = bastion_config(bastion, tmp_path)
        with bench(tmp_path / "korch", node.host("n1", "-F", str(config), "-J", "bastion")) as made:
            data = os.urandom(20_000_000)
            assert made.runner.run(made.transport.run(Command(("cat",), stdin=data))).stdout == data


def test_jumping_twice(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first, second, last = (stack.enter_context(sshd(tmp_path / name)) for name in ("first", "second", "last"))
        config = bastion_config(first, tmp_path)
        config.write_text(
            f"Host second\n  HostName 127.0.0.1\n  Port {second.port}\n  IdentityFile {second.user_key}\n"
            f"  UserKnownHostsFile {second.known_hosts}\n" + config.read_text()
        )
        host = last.host("n1", "-F", str(config), "-J", "bastion,second")
        assert hello(tmp_path, host) == b"hello\n"
        assert "Accepted publickey" in first.log()
        assert "Accepted publickey" in second.log()


@pytest.mark.parametrize("jump", ["bastion", "second"])
def test_a_jump_host_whose_key_is_unknown_or_changed_can_be_trusted(tmp_path: Path, jump: str) -> None:
    with contextlib.ExitStack() as stack:
        first, second, last = (stack.enter_context(sshd(tmp_path / name)) for name in ("first", "second", "last"))
        config = bastion_config(first, tmp_path)
        config.write_text(
            f"Host second\n  HostName 127.0.0.1\n  Port {second.port}\n  IdentityFile {second.user_key}\n"
            f"  UserKnownHostsFile {second.known_hosts}\n" + config.read_text()
        )
        strange = {"bastion": first, "second": second}[jump]
        host = last.host("n1", "-F", str(config), "-J", "bastion,second")
        with bench(tmp_path / "korch", host) as made:
            for text, refusal in (
                ("", HostKeyUnknownError),
                (f"{strange.name} {public(make_key(tmp_path / 'old'))}\n", HostKeyChangedError),
            ):
                strange.known_hosts.write_text(text)
                (tmp_path / "korch/clusters/test/known_hosts").unlink(missing_ok=True)
                with pytest.raises(refusal, match=f"n1: jump host {jump}: ") as caught:
                    made.runner.run(made.transport.run(HELLO))
                assert "korch node trust n1" in caught.value.hint
                shown = made.runner.run(made.connector.shown_key(host))
                assert (shown.host, shown.name, shown.is_known) == (f"jump host {jump}", strange.name, False)
            made.connector.trust(shown)
            assert made.runner.run(made.connector.shown_key(host)).host == "n1"
            assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_a_circle_of_jump_hosts_is_refused(server: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(InvalidError, match="circle"):
        hello(tmp_path, a_host("n1", "target", ssh_args=("-F", str(config), "-J", "a")))


def test_a_jump_host_that_forbids_forwarding_is_named(tmp_path: Path) -> None:
    with sshd(tmp_path / "bastion", "AllowTcpForwarding no") as bastion, sshd(tmp_path / "node") as node:
        config = bastion_config(bastion, tmp_path)
        with pytest.raises(HostUnreachableError, match="the jump host cannot connect") as caught:
            hello(tmp_path, node.host("n1", "-F", str(config), "-J", "bastion"))
        assert "TCP forwarding" in caught.value.hint


def test_the_key_of_a_host_behind_a_bastion_can_be_trusted(tmp_path: Path) -> None:
    with sshd(tmp_path / "bastion") as bastion, sshd(tmp_path / "node") as node:
        config = bastion_config(bastion, tmp_path)
        host = node.host("n1", "-F", str(config), "-J", "bastion", known=tmp_path / "none")
        with bench(tmp_path / "korch", host) as made:
            made.connector.trust(made.runner.run(made.connector.shown_key(host)))
            assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_a_proxy_command_is_used_and_ended(server: Sshd, tmp_path: Path) -> None:
    proxy = tmp_path / "proxy.sh"
    proxy.write_text(f'echo $$ > "{tmp_path}/pid"; exec busybox nc "$1" "$2"\n')
    host = server.host("n1", "-o", f"ProxyCommand=sh {proxy} %h %p")
    with bench(tmp_path, host) as made:
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.01)
    pytest.fail("the proxy command still runs")


def test_a_failing_proxy_commands_words_are_told(server: Sshd, tmp_path: Path) -> None:
    host = server.host("n1", "-o", 'ProxyCommand=sh -c "echo no such tunnel >&2; exit 1"', "-o", "ConnectTimeout=1")
    with bench(tmp_path, host) as made, pytest.raises(HostUnreachableError, match=r"n1: .*no such tunnel"):
        made.runner.run(made.transport.connect(timeout_s=1.0))


def test_a_host_name_that_a_shell_would_act_on_is_refused(server: Sshd, tmp_path: Path) -> None:
    bad = replace(server.host("n1", "-o", "ProxyCommand=nc %h %p"), address="x`touch${IFS}pwned`")
    with pytest.raises(InvalidError):
        hello(tmp_path, bad)


def test_forbidden_forwarding_is_a_permission_error(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", "AllowTcpForwarding no") as server, bench(tmp_path, server.host()) as made:
        with pytest.raises(PermissionError, match="n1"):
            made.runner.run(made.transport.forward("127.0.0.1", server.port))
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


# --- limits of sshd --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 10])
def test_few_sessions_are_enough_for_many_commands(tmp_path: Path, most: int) -> None:
    async def thirty() -> list[Result]:
        script = Script('sleep 0.02; echo "$1"', ("x",))
        return await asyncio.gather(*(made.transport.run(script) for _ in range(30)))

    with sshd(tmp_path / "sshd", f"MaxSessions {most}") as server, bench(tmp_path, server.host()) as made:
        assert made.runner.run(thirty()) == [Result(0, b"x\n", b"")] * 30
        assert server.log().count("Accepted publickey") == 1


def test_no_sessions_at_all_is_told(tmp_path: Path) -> None:
    with (
        sshd(tmp_path / "sshd", "MaxSessions 0") as server,
        pytest.raises(NoPermissionError, match=r"n1: .*no session"),
    ):
        hello(tmp_path, server.host())


def test_commands_that_nobody_waits_for_do_not_block_the_rest(tmp_path: Path) -> None:
    async def lose_six() -> bytes:
        lost = [asyncio.create_task(made.transport.run(Command(("sleep", "60"), timeout_s=60))) for _ in range(6)]
        await asyncio.sleep(0.5)
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        return (await asyncio.wait_for(made.transport.run(HELLO), 20)).stdout

    with sshd(tmp_path / "sshd") as server, bench(tmp_path, server.host()) as made:
        assert made.runner.run(lose_six()) == b"hello\n"
        assert server.log().count("Accepted publickey") == 2


@contextlib.asynccontextmanager
async def lasting(made: Bench) -> AsyncIterator[None]:
    """A program that stays on the control connection."""
    async with made.transport.stream(Script("echo; cat", timeout_s=0), control=True) as stream:
        await anext(stream.chunks())
        yield


@pytest.mark.parametrize("most", [2, 3, 10])
def test_a_lasting_program_shares_the_one_connection_with_commands(tmp_path: Path, most: int) -> None:
    async def beside() -> list[Result]:
        async with lasting(made):
            return await asyncio.gather(*(made.transport.run(HELLO) for _ in range(20)))

    with sshd(tmp_path / "sshd", f"MaxSessions {most}") as server, bench(tmp_path, server.host()) as made:
        assert made.runner.run(beside()) == [Result(0, b"hello\n", b"")] * 20
        assert server.log().count("Accepted publickey") == 1


def test_an_sshd_with_no_room_beside_a_lasting_program_is_told(tmp_path: Path) -> None:
    async def beside() -> None:
        async with lasting(made):
            await asyncio.gather(*(made.transport.run(HELLO) for _ in range(3)))

    with sshd(tmp_path / "sshd", "MaxSessions 1") as server, bench(tmp_path, server.host()) as made:
        with pytest.raises(NoPermissionError, match=r"n1: .*no session") as caught:
            made.runner.run(beside())
        assert "at least 2" in caught.value.hint


def test_many_logins_at_once_stay_within_max_startups(tmp_path: Path) -> None:
    """Forty processes' worth of connections to one sshd with 10:30:100."""

    async def everyone() -> dict[str, Result | KorchError]:
        async with Connector(Settings(tmp_path, "test")) as connector:
            transports = [connector.transport_for(server.host(f"n{number}")) for number in range(40)]
            try:
                return await each(by_host(transports), lambda _, transport: transport.run(HELLO))
            finally:
                await asyncio.gather(*(transport.close() for transport in transports))

    with sshd(tmp_path / "sshd") as server:
        results = asyncio.run(everyone())
        assert all(result == Result(0, b"hello\n", b"") for result in results.values())
        assert "MaxStartups" not in server.log()


def test_a_crowded_sshd_is_tried_again(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", "MaxStartups 1:100:1") as server:
        import socket

        blocker = socket.create_connection(("127.0.0.1", server.port))
        blocker.recv(4)
        timer = threading.Timer(0.7, blocker.close)
        timer.start()
        try:
            assert hello(tmp_path, server.host()) == b"hello\n"
        finally:
            timer.join()
        assert "MaxStartups" in server.log()


NEW_KEX = "KexAlgorithms sntrup761x25519-sha512@openssh.com"


def test_a_key_exchange_that_is_too_new_is_named_with_its_cure(tmp_path: Path, kind: str) -> None:
    with sshd(tmp_path / "sshd", NEW_KEX) as server:
        if kind == "openssh":  # what this transport is for
            assert hello(tmp_path, server.host()) == b"hello\n"
            return
        with pytest.raises(NoCommonAlgorithmError, match=r"n1: .*share no kex") as caught:
            hello(tmp_path, server.host())
    assert "KexAlgorithms +curve25519-sha256" in caught.value.hint
    assert "korch_transport: openssh" in caught.value.hint


def test_a_key_exchange_that_ssh_was_told_not_to_use_is_named(tmp_path: Path, kind: str) -> None:
    if kind == "fabric":
        pytest.skip("paramiko has its own list")
    with sshd(tmp_path / "sshd", NEW_KEX) as server:
        host = server.host("n1", "-o", "KexAlgorithms=curve25519-sha256")
        with pytest.raises(NoCommonAlgorithmError, match=r"n1: .*share no key exchange method; .*sntrup761"):
            hello(tmp_path, host)


def test_the_key_exchange_of_the_standard_is_enough(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", "KexAlgorithms curve25519-sha256", "Ciphers aes256-gcm@openssh.com") as server:
        assert hello(tmp_path, server.host()) == b"hello\n"


def test_keys_are_renewed_in_the_middle_of_transfers(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", "RekeyLimit 1M") as server, bench(tmp_path, server.host()) as made:
        data = os.urandom(6_000_000)
        result = made.runner.run(made.transport.run(Command(("cat",), stdin=data)))
        assert result.stdout == data


# --- hosts that stop answering ---------------------------------------------------------------------------------------


def test_a_frozen_sshd_is_unreachable_in_time_and_delays_nobody(server: Sshd, tmp_path: Path) -> None:
    async def both() -> tuple[dict[str, Result | KorchError], float]:
        async with Connector(Settings(tmp_path / "korch", "test")) as connector:
            transports = [connector.transport_for(host) for host in (frozen.host("frozen"), server.host("fine"))]
            done_s: dict[str, float] = {}
            began = time.monotonic()

            async def one(name, transport):
                try:
                    await transport.connect(timeout_s=3)
                    return await transport.run(HELLO)
                finally:
                    done_s[name] = time.monotonic() - began

            try:
                return await each(by_host(transports), one), done_s["frozen"] - done_s["fine"]
            finally:
                await asyncio.gather(*(transport.close() for transport in transports))

    with sshd(tmp_path / "sshd") as frozen:
        assert frozen.process is not None
        frozen.process.send_signal(signal.SIGSTOP)
        results, lead_s = asyncio.run(both())
    assert isinstance(results["frozen"], HostUnreachableError)
    assert "frozen: no answer" in str(results["frozen"])
    assert results["fine"] == Result(0, b"hello\n", b"")
    assert lead_s > 1


SAYINGS = {
    "nothing": (b"", False, "no answer"),
    "goodbye": (b"", True, "closed before the SSH banner"),
    "something else": (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "handshake|closed|banner|HTTP"),
    "banner, then nothing": (b"SSH-2.0-OpenSSH_9.2\r\n", False, r"no answer.*login"),
    "banner, then goodbye": (b"SSH-2.0-OpenSSH_9.2\r\n", True, "127.0.0.1"),
    "crowded": (b"Exceeded MaxStartups\r\n", True, "Exceeded MaxStartups"),
    "punished": (b"Not allowed at this time\r\n", True, "Not allowed at this time"),
}


@pytest.mark.parametrize("saying", SAYINGS)
def test_strange_servers_are_told_apart_in_time(tmp_path: Path, saying: str, kind: str) -> None:
    words, ends, message = SAYINGS[saying]
    if kind == "openssh" and ends:  # ssh keeps to itself what a server said before it hung up
        message = "closed|reset|invalid|Broken pipe"
    visits = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            while not ends and await reader.read(65536):
                pass
            writer.close()
            await writer.wait_closed()
        visits.release()

    async def meet() -> bool:
        fake = await asyncio.start_server(answer, "127.0.0.1", 0)
        host = a_host("n1", "127.0.0.1", fake.sockets[0].getsockname()[1], "root")
        async with Connector(Settings(tmp_path, "test")) as connector:
            transport = connector.transport_for(host)
            with pytest.raises(HostUnreachableError, match=f"n1: .*({message})"):
                await asyncio.wait_for(transport.connect(timeout_s=1.0), 30)
            greets = await connector.greets(host)
            await transport.close()
        fake.close()
        while any(task.get_coro().__name__ == "answer" for task in asyncio.all_tasks()):
            await visits.acquire()
        return greets

    assert asyncio.run(meet()) is (saying not in {"nothing", "goodbye"})


def test_a_living_sshd_greets_and_a_dead_one_does_not(server: Sshd, tmp_path: Path) -> None:
    with bench(tmp_path, server.host()) as made:
        assert made.runner.run(made.connector.greets(server.host())) is True
        assert made.runner.run(made.connector.greets(a_host("n2", "127.0.0.1", free_port()))) is False


def test_nobody_listening_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(HostUnreachableError, match=r"n1: .*Connection refused"):
        hello(tmp_path, a_host("n1", "127.0.0.1", free_port()))


def test_a_name_without_address_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostUnreachableError, match=r'n1: the name "no-such-host.invalid" has no address'):
        hello(tmp_path, a_host("n1", "no-such-host.invalid"))


async def began(server: Sshd) -> None:
    """Returns when LONG runs there."""
    async with asyncio.timeout(30):
        while not (server.home / "began").exists():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


def test_a_connection_that_dies_is_told_and_made_again(tmp_path: Path) -> None:
    async def die() -> None:
        task = asyncio.create_task(made.transport.run(LONG))
        await began(server)
        assert server.process is not None
        for pid in children(server.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await task

    with sshd(tmp_path / "sshd") as server, bench(tmp_path, server.host()) as made:
        with pytest.raises(HostUnreachableError, match="n1: the connection broke"):
            made.runner.run(die())
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_silence_in_the_middle_of_a_command_is_noticed(tmp_path: Path) -> None:
    async def freeze() -> None:
        task = asyncio.create_task(made.transport.run(LONG))
        await began(server)
        assert server.process is not None
        for pid in children(server.process.pid):
            os.kill(pid, signal.SIGSTOP)
        await asyncio.wait_for(task, 30)

    keepalive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")
    silent = pytest.raises(HostUnreachableError, match=r"n1: .*silent")
    with sshd(tmp_path / "sshd") as server, bench(tmp_path, server.host("n1", *keepalive)) as made, silent:
        made.runner.run(freeze())


def test_a_host_that_freezes_while_it_is_sent_data_does_not_stop_the_others(server: Sshd, tmp_path: Path) -> None:
    async def freeze() -> None:
        await made.transport.connect()
        task = asyncio.create_task(made.transport.run(Script("sleep 1; cat", stdin=bytes(30_000_000), timeout_s=60)))
        await asyncio.sleep(0.3)
        assert other.process is not None
        for pid in children(other.process.pid):
            os.kill(pid, signal.SIGSTOP)
        fine = made.connector.transport_for(server.host("fine"))
        assert (await fine.run(HELLO)).stdout == b"hello\n"
        await fine.close()
        await asyncio.wait_for(task, 30)

    keepalive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")
    silent = pytest.raises(HostUnreachableError, match=r"n1: .*silent")
    with sshd(tmp_path / "sshd") as other, bench(tmp_path, other.host("n1", *keepalive)) as made, silent:
        made.runner.run(freeze())


def test_a_quiet_long_command_is_not_taken_for_silence(tmp_path: Path) -> None:
    keepalive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    with sshd(tmp_path / "sshd") as server, bench(tmp_path, server.host("n1", *keepalive)) as made:
        assert made.runner.run(made.transport.run(Script("sleep 4; echo ok"))).stdout == b"ok\n"


def test_a_restarted_host_is_reached_again_on_the_next_call(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd") as server, bench(tmp_path, server.host()) as made:
        assert made.runner.run(made.transport.run(HELLO)).status == 0
        server.stop()
        server.start()
        assert made.runner.run(made.transport.run(HELLO)).stdout == b"hello\n"


def test_a_node_that_fails_again_and_again_is_left_alone_for_a_while(tmp_path: Path) -> None:
    with bench(tmp_path, a_host("n1", "127.0.0.1", free_port())) as made:
        for _ in range(4):
            with pytest.raises(HostUnreachableError):
                made.runner.run(made.transport.connect())
        with pytest.raises(HostUnreachableError, match="failed 4 times"):
            made.runner.run(made.transport.connect())


# --- thrift ----------------------------------------------------------------------------------------------------------


def test_waiting_needs_no_thread_of_a_pool(tmp_path: Path) -> None:
    """Sixty commands that wait at the same time, on ten connections: one thread each, and none for waiting."""

    async def wait_all() -> int:
        async with Connector(Settings(tmp_path, "test")) as connector:
            transports = [connector.transport_for(server.host(f"n{number}")) for number in range(10)]
            await asyncio.gather(*(transport.connect() for transport in transports))
            before = threading.active_count()
            waits = [asyncio.create_task(t.run(Command(("sleep", "1")))) for t in transports for _ in range(6)]
            await asyncio.sleep(0.5)
            more = threading.active_count() - before
            await asyncio.gather(*waits)
            await asyncio.gather(*(transport.close() for transport in transports))
            return more

    with sshd(tmp_path / "sshd") as server:
        assert asyncio.run(wait_all()) <= 0


def test_closing_ends_the_threads_of_connections(server: Sshd, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    hello(tmp_path, server.host())
    for _ in range(300):
        left = [
            t for t in threading.enumerate() if t not in before and "ssh-" not in t.name and "asyncio" not in t.name
        ]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail(f"still running: {left}")
