"""`korch node prepare`: bare hosts made ready by `playbooks/prepare.yml`, through the user's own Ansible."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, current_settings, examples
from korch.errors import CommandFailedError, NotFoundError, SetupError

if TYPE_CHECKING:
    from korch.inventory.model import Host
    from korch.settings import Settings


@dataclass(frozen=True, slots=True)
class Wish:
    """What `korch node prepare` was asked for. Empty text: the playbook's own default."""

    hosts: tuple[str, ...]  # names in the inventory
    users: Mapping[str, str]  # host → who korch logs in as there
    engine: str = ""
    login: str = ""
    firewall: bool = False
    check: bool = False
    more: tuple[str, ...] = ()  # words for ansible-playbook


def prepare_argv(program: str, playbook: Path, inventories: Sequence[Path], wish: Wish, known_hosts: Path) -> list[str]:
    """The call of ansible-playbook. Host keys that `korch node trust` accepted count besides those of ssh itself."""
    variables: dict[str, object] = {"prepare_users": dict(wish.users)}
    if wish.engine:
        variables["prepare_engine"] = wish.engine
    if wish.login:
        variables["ansible_user"] = wish.login  # an extra variable wins over the inventory's
    if wish.firewall:
        variables["prepare_firewall"] = True
    keys = f'-o GlobalKnownHostsFile="/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2 {known_hosts}"'
    return [
        program,
        *(word for path in inventories for word in ("-i", str(path))),
        "--limit",
        ",".join(wish.hosts),
        f"--ssh-extra-args={keys}",
        "--extra-vars",
        json.dumps(variables, sort_keys=True),
        *(("--check", "--diff") if wish.check else ()),
        *wish.more,
        str(playbook),
    ]


def ansible_hosts(hosts: Sequence[Host]) -> str:
    """A JSON inventory of hosts that Ansible cannot find itself: Vagrant's, and those of a plain list."""
    entries: dict[str, dict[str, object]] = {}
    for host in hosts:
        values = {
            "ansible_host": host.address,
            "ansible_port": host.port,
            "ansible_user": host.user,
            "ansible_ssh_private_key_file": host.identity_file,
            "ansible_ssh_common_args": shlex.join(host.ssh_args),
            "korch_engine": host.engine,
        }
        entries[host.name] = {key: value for key, value in values.items() if value}
    return json.dumps({"all": {"hosts": entries}}, indent=2)


def find_playbook(name: str) -> Path:
    """A playbook of korch: in the checkout, else where installing korch put it."""
    checkout = Path(__file__).parents[2] / "playbooks" / name
    installed = Path(sysconfig.get_path("data")) / "share" / "korch" / "playbooks" / name
    for path in (checkout, installed):
        if path.is_file():
            return path
    raise SetupError(
        f"playbook {name} is not installed with korch", hint="Use a checkout of korch, or install it anew."
    )


def find_ansible_playbook() -> str:
    """ansible-playbook beside this Python, else on PATH."""
    from korch.inventory.programs import find_program

    program = find_program("ansible-playbook")
    if program is None:
        raise SetupError(
            "korch node prepare needs Ansible, and ansible-playbook is not installed",
            hint="Run: pip install ansible-core",
        )
    return program


def prepare_nodes(sources: Sequence[str], names: Sequence[str], settings: Settings, wish: Wish) -> None:
    """Run the playbook for these nodes (or hosts), its output going to the terminal. `wish.hosts` and `.users` are set.

    Raises `CommandFailedError` when it fails anywhere, `SetupError` without Ansible, `NotFoundError` for unknown names.
    """
    from dataclasses import replace

    from korch.inventory.load import load_inventory, parse_source

    program, playbook = find_ansible_playbook(), find_playbook("prepare.yml")
    chosen = _chosen(load_inventory(sources, home=settings.home).hosts, names)
    full = replace(
        wish,
        hosts=tuple(host.name for host in chosen),
        users={host.name: host.user for host in chosen if host.user},
    )
    parsed = [parse_source(source, settings.home) for source in sources]
    with tempfile.TemporaryDirectory(prefix="korch-prepare-") as folder:
        paths = [source.path.absolute() for source in parsed if source.kind == "ansible"]
        if any(source.kind != "ansible" for source in parsed):
            written = Path(folder) / "hosts.json"
            written.write_text(ansible_hosts(chosen))
            paths.append(written)
        argv = prepare_argv(program, playbook, paths, full, settings.known_hosts)
        environ = {"ANSIBLE_PYTHON_INTERPRETER": "auto_silent", "ANSIBLE_PIPELINING": "true", **os.environ}
        status = subprocess.run(argv, env=environ, check=False).returncode
    if status:
        raise CommandFailedError(
            f"preparing {', '.join(full.hosts)} failed: ansible-playbook ended with {status}",
            host=full.hosts[0],
            status=status,
            hint="Its output above names host and task; mend it and run the same command again.",
        )


def _chosen(hosts: Sequence[Host], names: Sequence[str]) -> list[Host]:
    from korch.inventory.hostnames import node_name

    by_name = {node_name(host.name): host for host in hosts} | {host.name: host for host in hosts}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise NotFoundError(
            f"{', '.join(unknown)}: not in the inventory", hint=f"It has {', '.join(host.name for host in hosts[:20])}."
        )
    return list({by_name[name].name: by_name[name] for name in names}.values())


async def _recorded_sources(settings: Settings) -> tuple[str, ...]:
    """The sources that the cluster was made with, when it exists; else those of this command line."""
    if not settings.state_file.exists():
        return settings.inventories
    from korch.master.cluster import open_cluster

    async with open_cluster(settings, need_inventory=False) as cluster:
        return cluster.record.inventories


@click.command(
    short_help="Make bare Debian or Ubuntu hosts ready, with Ansible.",
    epilog=examples(
        "korch node prepare n1 n2                # Docker, sudo and sshd's limits for the inventory's user",
        "korch node prepare n1 --login root      # the first time, when that user is not there yet",
        "korch node prepare n1 --engine podman --check   # only say what would change",
        "korch node prepare n1 -- --ask-become-pass      # words after -- go to ansible-playbook",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NODE... [-- WORDS]")
@click.option(
    "--engine", type=click.Choice(["docker", "podman"]), default=None, help="Default: korch_engine, or docker."
)
@click.option("--login", metavar="USER", default="", help="Log in as this user this once.")
@click.option("--firewall", is_flag=True, help="Also let in nothing but SSH and what the containers need.")
@click.option("--check", is_flag=True, help="Change nothing; show what would change.")
@cluster_options()
def prepare(names: tuple[str, ...], engine: str | None, login: str, firewall: bool, check: bool) -> None:
    """Make bare Debian or Ubuntu hosts ready, with Ansible: engine, user, sudo, limits of sshd.

    Doing it again changes nothing. The hosts need an SSH login that is root or may use sudo.
    """
    from korch.cli.base import run_async

    nodes, more = _split_words(names)
    settings = current_settings()
    find_ansible_playbook()  # before anything else is asked of the user
    sources = run_async(lambda: _recorded_sources(settings))
    wish = Wish((), {}, engine=engine or "", login=login, firewall=firewall, check=check, more=more)
    prepare_nodes(sources, nodes, settings, wish)


def _split_words(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(nodes, words for ansible-playbook): the first word that begins with - begins the latter."""
    cut = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    if cut == 0:
        raise click.UsageError("Name a node before the words for ansible-playbook.")
    return tuple(words[:cut]), tuple(words[cut:])
