"""The program `korch`: a static table of commands, each imported only when it is called.

`korch --help` therefore costs little more than click itself. A new command is one line in `COMMANDS` and one module.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from korch import __version__
from korch.cli.base import cluster_options, examples
from korch.cli.edge import EdgeGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: where its click object is (`module:attribute` under korch.cli) and its line in the help."""

    name: str
    target: str
    help: str


SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Deploy": (
        Entry("deploy", "deploy:deploy", "Run an app in N replicas on the hosts that suit best."),
        Entry("apply", "apply:apply", "Make Kubernetes manifests true."),
        Entry("scale", "scale:scale", "Change how many replicas an app has."),
        Entry("rollout", "rollout:rollout", "Status, history, undo, restart and pause of rollouts."),
        Entry("delete", "delete:delete", "Remove an app or another object."),
        Entry("plan", "plan:plan", "Show what would change on which host, and change nothing."),
        Entry("sync", "sync:sync", "Make what was declared true again, now."),
        Entry("image", "image:image", "Send images to hosts without a registry."),
    ),
    "Look": (
        Entry("status", "status:status", "The whole at one glance: who leads, what is wrong, what to do."),
        Entry("get", "get:get", "List objects: pods, deployments, nodes, events, ..."),
        Entry("describe", "describe:describe", "Everything about one object, with its events."),
        Entry("logs", "logs:logs", "Show what a pod or all pods of an app print."),
        Entry("exec", "logs:exec_", "Run a command in a pod's container."),
        Entry("events", "events:events", "What happened lately."),
        Entry("top", "top:top", "What hosts and pods use now, the busiest first."),
        Entry("why", "why:why", "Why a pod runs where it runs or cannot; what a reason means."),
        Entry("whatif", "whatif:whatif", "Where replicas would go, or what losing a host would do."),
    ),
    "Nodes": (
        Entry("nodes", "nodes:nodes", "The hosts: state, load, memory, disk, containers."),
        Entry("rebalance", "rebalance:rebalance", "Move replicas from loaded hosts to less loaded ones."),
        Entry("node", "node:node", "Check, trust, cordon, drain, prepare or remove a host."),
    ),
    "Cluster": (
        Entry("master", "master:master", "Keep what was declared true, for as long as this runs."),
        Entry("kubeconfig", "kubeconfig:kubeconfig", "Let kubectl, helm and others in, with a role."),
        Entry("proxy", "proxy:proxy", "The API as plain HTTP on this machine, for a browser or curl."),
        Entry("token", "token:token", "What was handed out for the API, and taking it back."),
        Entry("cluster", "cluster:cluster", "The clusters that this machine knows."),
        Entry("prune", "prune:prune", "Remove images and leftovers that nothing uses any more."),
        Entry("adopt", "adopt:adopt", "Rebuild the state from what runs on the hosts."),
        Entry("backup", "backup:backup", "Save the cluster's state to a file."),
        Entry("restore", "backup:restore", "Bring back a saved state."),
    ),
    "Lab": (Entry("lab", "lab:lab", "Real SSH hosts on this one machine, and ways to break them."),),
}

COMMANDS: dict[str, Entry] = {entry.name: entry for entries in SECTIONS.values() for entry in entries}

_NAME_WIDTH = max(map(len, COMMANDS))  # one column for all sections

_OTHER_WORDS = {  # what people who come from other tools type first
    "run": "deploy",
    "up": "deploy",
    "ps": "get pods",
    "ls": "get all",
    "list": "get all",
    "rm": "delete",
    "remove": "delete",
    "rollback": "rollout undo",
    "undo": "rollout undo",
    "restart": "rollout restart",
    "pause": "rollout pause",
    "resume": "rollout resume",
    "explain": "why",
    "doctor": "node check",
    "check": "node check",
    "trust": "node trust",
    "cordon": "node cordon",
    "uncordon": "node uncordon",
    "drain": "node drain",
    "hosts": "nodes",
    "push": "image push",
    "log": "logs",
    "login": "kubeconfig",
    "kubectl": "kubeconfig",
}


class LazyGroup(EdgeGroup):
    """The table of commands as a click group that imports one module a call."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click object of a command, imported now; None for an unknown name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        import importlib

        module, _, attribute = entry.target.partition(":")
        found: click.Command = getattr(importlib.import_module(f"korch.cli.{module}"), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a guess at what an unknown name meant."""
        name = args[0]
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise click.UsageError(f'there is no command "{name}".{_guess(name)}', ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by purpose."""
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name.ljust(_NAME_WIDTH), entry.help) for entry in entries])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands first: they are what a person looks for."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)


def _guess(name: str) -> str:
    if name in _OTHER_WORDS:
        return f" Did you mean `korch {_OTHER_WORDS[name]}`?"
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(f'`korch {word}`' for word in close)}?" if close else ""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "korch -i hosts.yml nodes                  # first use: the inventory is recorded",
        "korch deploy nginx --replicas 3 --port 80 # three containers on the three best hosts",
        "korch why deploy/nginx                    # and the reasons",
        "korch logs -f nginx",
        "korch COMMAND --help                      # more examples",
        'eval "$(_KORCH_COMPLETE=bash_source korch)" # completion; also zsh_source and fish_source',
    ),
)
@cluster_options()
@click.version_option(__version__, "--version", message="korch %(version)s")
def cli() -> None:
    """Machines that you can ssh into become a cluster that runs replicated containers."""


def main(args: list[str] | None = None) -> Any:
    """Run the program and exit: the entry point of the console script."""
    gc.set_threshold(1_000_000, 20, 20)  # a command is short: collecting while modules load is a tenth of its time
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name in Greek must not kill an ASCII terminal's table
    try:
        return cli.main(args, "korch")
    except SystemExit as end:
        if args is None and isinstance(end.code, int):
            _leave(end.code)
        raise


def _leave(status: int) -> NoReturn:
    """End at once. Python would take everything apart first, object by object: a tenth of a short command's time."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more: as Python would end, too
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
