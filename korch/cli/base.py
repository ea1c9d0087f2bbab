"""What every command shares: the options that name a cluster, and the way to a client.

A command is thin: it parses, calls the client inside `run`, renders. Nothing heavier than click is imported here until
a command runs, so that `korch --help` stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from korch.client.base import Client
    from korch.settings import Settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_META = "korch.cli.options"
_FAR = (
    ("--context", "NAME", "Work over HTTPS with this context of the kubeconfig; also KORCH_CONTEXT."),
    ("--server", "URL", "Work over HTTPS with the API at this address; also KORCH_SERVER."),
    (
        "--kubeconfig",
        "FILE",
        "Work over HTTPS with this kubeconfig. Default: KUBECONFIG, which alone counts without a cluster here.",
    ),
)


@dataclass(slots=True)
class GlobalOptions:
    """The options that name a cluster, gathered from the group and from the command; the command's win."""

    inventories: list[str] = field(default_factory=list)
    cluster: str | None = None
    host_key: str | None = None
    server: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    verbosity: int = 0


def global_options() -> GlobalOptions:
    """The gathered options of this call of the program; one value for all levels of commands."""
    found: GlobalOptions = click.get_current_context().meta.setdefault(_META, GlobalOptions())
    return found


def _gather(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    options: GlobalOptions = ctx.meta.setdefault(_META, GlobalOptions())
    match param.name:
        case "inventories":
            options.inventories.extend(value)
        case "verbosity":
            options.verbosity += value
        case name if name and value is not None:
            setattr(options, name, value)


def _shared(*names: str, **settings: Any) -> Callable[[F], F]:
    """An option that is gathered for `run` instead of given to the command: first, as others' defaults hang on it."""
    return click.option(*names, expose_value=False, is_eager=True, callback=_gather, **settings)


def cluster_options(*, short_inventory: bool = True, remote: bool = True) -> Callable[[F], F]:
    """Decorator: what names a cluster, and `-v`, on the program, a group or a command alike.

    They may stand before or after the command's name; `run` reads them. `short_inventory=False` leaves `-i` to the
    command (`korch exec -i` means stdin), `remote=False` leaves it `--server` and `--context`.
    """
    decorators = (
        _shared(
            *(("-i", "--inventory") if short_inventory else ("--inventory",)),
            "inventories",
            metavar="SOURCE",
            multiple=True,
            help="Ansible inventory, vagrant[:DIR], lab, or [user@]host[:port],...; may be repeated. "
            "Recorded at first use. Also KORCH_INVENTORY, several separated by `;`.",
        ),
        _shared(
            "--cluster",
            metavar="NAME",
            help="Which cluster of this machine, if not the default; also KORCH_CLUSTER.",
        ),
        *(_shared(name, metavar=word, help=text) for name, word, text in (_FAR if remote else ())),
        _shared(
            "--host-key",
            type=click.Choice(["strict", "accept-new"]),
            help="Unknown SSH host keys: refuse them, or accept and remember them; also KORCH_HOST_KEY. "
            "Default: refuse them, unless ssh's configuration says StrictHostKeyChecking accept-new or no.",
        ),
        _shared("-v", "--verbose", "verbosity", count=True, help="Say more on stderr; -vv says everything."),
    )

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def limit_option(function: F) -> F:
    """Decorator: `--limit PATTERN`, given to the command as `limit`."""
    return click.option(
        "--limit", metavar="GROUP", default="", help="Only these hosts or groups of the inventory, comma-separated."
    )(function)


def timeout_option(function: F) -> F:
    """Decorator: `--timeout S`, given to the command as `timeout_s`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.IntRange(1),
        default=120,
        show_default=True,
        metavar="S",
        help="Give up waiting after so many seconds.",
    )(function)


def namespace_option(function: F) -> F:
    """Decorator: `-n/--namespace`, given to the command as `namespace`."""
    help_ = 'Default: "default", or what the context of a kubeconfig says.'
    return click.option("-n", "--namespace", metavar="NAME", default=None, callback=_namespace, help=help_)(function)


def _namespace(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    if value is None and not ctx.resilient_parsing and (way := remote_way()) is not None:
        from korch.cli.remote import access

        return access(way).namespace or "default"
    return "default" if value is None else value


def examples(*lines: str) -> str:
    """The Examples block of a command's help, for `epilog=`; `# ...` lines say what the next line does."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True, slots=True)
class Way:
    """That a cluster is reached over HTTPS, and how: each "" for what the kubeconfig says. `why`, for messages."""

    server: str
    context: str
    kubeconfig: str
    why: str


def remote_way() -> Way | None:
    """How to reach the cluster over HTTPS; None when it is worked on in this process.

    Options go before the environment: `-i` and `--cluster` mean this machine, `--server`, `--context` and
    `--kubeconfig` mean HTTPS, then so do KORCH_SERVER and KORCH_CONTEXT. KUBECONFIG, which is there for other programs
    too, counts alone only on a machine that has no cluster of its own.
    """
    options, environ = global_options(), os.environ
    server, context = environ.get("KORCH_SERVER", ""), environ.get("KORCH_CONTEXT", "")
    here = "-i" if options.inventories else "--cluster" if options.cluster else ""
    named = {"--server": options.server, "--context": options.context, "--kubeconfig": options.kubeconfig}
    said = [f"{name} {value}" for name, value in named.items() if value]
    if said and here:
        raise click.UsageError(f"{said[0]} means a cluster that is reached over HTTPS, {here} one of this machine.")
    if said or (not here and (server or context)):
        why = said[0] if said else f"KORCH_SERVER={server}" if server else f"KORCH_CONTEXT={context}"
        return Way(options.server or server, options.context or context, options.kubeconfig or "", why)
    if here or not environ.get("KUBECONFIG") or environ.get("KORCH_CLUSTER") or environ.get("KORCH_INVENTORY"):
        return None
    return _way_of_kubeconfig(environ["KUBECONFIG"])


def _way_of_kubeconfig(paths: str) -> Way | None:
    from korch.settings import korch_home

    if next(korch_home().glob("clusters/*/state.db"), None) is not None:
        return None
    there = any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path)
    return Way("", "", "", "KUBECONFIG, as this machine has no cluster of its own") if there else None


def current_settings() -> Settings:
    """Where things are and which cluster is meant, from flags and environment. Refused when it is one over HTTPS."""
    from korch.settings import read_settings

    way = remote_way()
    if way is not None and (way.server or way.context or way.kubeconfig):
        from korch.client.kube import beside_the_state

        raise beside_the_state(f"`{click.get_current_context().command_path}`", way.why)
    options = global_options()
    return read_settings(
        cluster=options.cluster, inventories=tuple(dict.fromkeys(options.inventories)), host_key=options.host_key
    )


def run(
    action: Callable[[Client], Awaitable[T]],
    *,
    limit: str = "",
    need_inventory: bool = True,
    looks: bool = False,
    endless: bool = False,
    settings: Settings | None = None,
) -> T:
    """What `action(client)` returns; the client is opened before and closed after, also on Ctrl-C and SIGTERM.

    `looks`: nothing is placed, so a limit is this process's own affair. `need_inventory=False` is for commands that
    only read the store: they load no SSH. An `endless` command is meant to be ended by Ctrl-C, which is then no
    event worth a sentence. `settings` default to those of the command line.
    """
    way = remote_way() if settings is None else None
    chosen = settings or (current_settings() if way is None else None)
    if way is not None and limit:
        raise click.UsageError(f"--limit is a pattern of an inventory, which is not here ({way.why}).")

    async def with_client() -> T:
        client: Client
        if way is not None:
            from korch.cli.remote import open_remote

            client = await open_remote(way)
        else:
            from korch.master.local import open_client

            assert chosen is not None
            client = await open_client(chosen, limit=limit, need_inventory=need_inventory)
        for warning in client.warnings:
            click.echo(f"Warning: {warning}", err=True)
        try:
            if limit and not looks:
                await _refuse_limit(client, limit)
            return await action(client)
        finally:
            await client.close()

    return run_async(with_client, endless=endless)


async def _refuse_limit(client: Client, limit: str) -> None:
    """A master that leads places by itself: it would never hear of the limit."""
    info = await client.info()
    if not info.has_master:
        return
    from korch.errors import ForbiddenError

    raise ForbiddenError(
        f'--limit "{limit}" binds only what this command places itself, and a master leads now ({info.lead}),'
        " which places by the whole inventory",
        hint="Say it in the wish: --node-selector LABEL=VALUE, or constraints in korch.yml.",
    )


def run_async(action: Callable[[], Awaitable[T]], *, endless: bool = False) -> T:
    """What `action()` returns; Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can clean up."""
    from korch.cli.process import run_to_end

    return run_to_end(action, verbosity=global_options().verbosity, endless=endless)


def on_terminal() -> bool:
    """Whether there is a person to ask: stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str, *, yes: bool, flag: str = "--yes") -> None:
    """Returns when the person agrees (or said `--yes`); without a terminal to ask on, a usage error names the flag."""
    if yes:
        return
    if not on_terminal():
        raise click.UsageError(f"{question} There is no terminal to ask on: give {flag}.")
    if not click.confirm(question, err=True):
        click.echo("Nothing was done.", err=True)
        raise SystemExit(1)


def report_and_fail(errors: Sequence[Exception]) -> NoReturn:
    """Shows all but the last error and raises that one: for commands that go on to the next name after a failure."""
    from korch.cli.edge import show_error

    for error in errors[:-1]:
        show_error(error)
    raise errors[-1]
