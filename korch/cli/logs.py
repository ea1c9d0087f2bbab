"""`korch logs` and `korch exec`: a running command on a node, its bytes to and from this terminal."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from korch.cli.base import cluster_options, examples, namespace_option, on_terminal, report_and_fail, run
from korch.errors import CommandFailedError, HostUnreachableError, KorchError, NotFoundError

if TYPE_CHECKING:
    from korch.client.base import Client, LogOptions
    from korch.resources.pod import Pod
    from korch.ssh.base import Stream

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red")
_LONGEST_LINE = 1 << 20  # bytes; what is longer is cut into lines of this size rather than kept in memory


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Option callback: `90`, `45s`, `10m`, `1h30m`, `2d` as seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", value.strip())
    if found is None or not any(found.groups()):
        raise click.BadParameter(f'"{value}" is not a duration: write it like 45s, 10m, 1h30m or 2d.', ctx, param)
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


@click.command(
    epilog=examples(
        "korch logs web                    # all pods of a deployment, each line with its pod",
        "korch logs -f --tail 20 web       # and what they print from now on",
        "korch logs pod/web-5d4f8-x2x9k --since 10m --timestamps",
        "korch logs web -c sidecar               # of this container; --all-containers: of each",
    )
)
@click.argument("name", metavar="POD|DEPLOYMENT")
@namespace_option
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines of each pod.")
@click.option("--since", callback=duration, metavar="DURATION", help="Only what is newer: 45s, 10m, 1h30m.")
@click.option("--timestamps", is_flag=True, help="Each line with its time on the node.")
@click.option("-c", "--container", default="", metavar="NAME", help="Of this container of the pod.")
@click.option("--all-containers", is_flag=True, help="Of all containers of the pod, init containers too.")
@cluster_options()
def logs(
    name: str,
    namespace: str,
    follow: bool,
    tail: int | None,
    since: int | None,
    timestamps: bool,
    container: str,
    all_containers: bool,
) -> None:
    """Show what a pod prints, or all pods of a deployment together."""

    async def show(client: Client) -> None:
        from korch.cli.refs import find_workload_or_pod, pods_of
        from korch.client.base import LogOptions

        target = await find_workload_or_pod(client, name, namespace)
        pods = await pods_of(client, target)
        placed = [pod for pod in pods if pod.spec.node_name]
        if not placed:
            raise NotFoundError(f"{name} has no pod on a node yet", hint=f"See why: korch why {name}")
        options = LogOptions(follow=follow, tail=tail, since_s=since, timestamps=timestamps)
        wanted = [(pod, one) for pod in placed for one in _containers(pod, container, every=all_containers)]
        await _show_all(client, wanted, options)

    run(show, endless=follow)


def _containers(pod: Pod, wanted: str, *, every: bool) -> list[str]:
    """The names of the containers whose logs are wanted; of all, those that have been made."""
    from korch.resources.podstate import chosen_container, statuses_of

    if every:
        return [status.name for status in statuses_of(pod) if status.container_id]
    return [chosen_container(pod, wanted)]


async def _show_all(client: Client, wanted: Sequence[tuple[Pod, str]], options: LogOptions) -> None:
    """All logs at once, line by line as they arrive; a node that fails or is slow leaves the others alone."""
    from msgspec.structs import replace

    errors: list[Exception] = []
    prefixes = _prefixes(wanted) if len(wanted) > 1 else [b""] * len(wanted)

    async def one(pod: Pod, container: str, prefix: bytes) -> None:
        try:
            async with client.logs(pod, replace(options, container=container)) as stream:
                await _copy_lines(stream, prefix)
                _check_status(pod, await stream.wait(), "the log command")
        except KorchError as error:
            errors.append(error)

    async with asyncio.TaskGroup() as group:
        for (pod, container), prefix in zip(wanted, prefixes, strict=True):
            group.create_task(one(pod, container, prefix), name=f"logs-{pod.metadata.name}-{container}")
    if errors:
        report_and_fail(errors)


def _prefixes(wanted: Sequence[tuple[Pod, str]]) -> list[bytes]:
    """`[web-1] ` for each pod, `[web-1 sidecar] ` where one has several: of one width, in colours on a terminal."""
    import os

    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    pods = {pod.metadata.uid for pod, _ in wanted}
    several = len(pods) < len(wanted)
    names = [f"{pod.metadata.name} {container}" if several else pod.metadata.name for pod, container in wanted]
    width = max(map(len, names))
    texts = [f"{'[' + name + ']':<{width + 2}} " for name in names]
    if colours:
        texts = [click.style(text, fg=_COLOURS[index % len(_COLOURS)]) for index, text in enumerate(texts)]
    return [text.encode() for text in texts]


async def _copy_lines(stream: Stream, prefix: bytes) -> None:
    """Whole lines to stdout; stdout and stderr of the container are kept apart until a line is complete."""
    rest = {1: b"", 2: b""}
    out = sys.stdout.buffer
    async for channel, data in stream.chunks():
        *lines, tail = (rest[channel] + data).split(b"\n")
        while len(tail) > _LONGEST_LINE:
            lines.append(tail[:_LONGEST_LINE])
            tail = tail[_LONGEST_LINE:]
        rest[channel] = tail
        if lines:
            out.write(b"".join(prefix + line + b"\n" for line in lines))
            out.flush()
    for tail in rest.values():
        if tail:
            out.write(prefix + tail + b"\n")
    out.flush()


def _check_status(pod: Pod, status: int, what: str) -> None:
    name, node = pod.metadata.name, pod.spec.node_name
    if status == -1:
        raise HostUnreachableError(f"{name}: the connection to {node} broke", host=node, hint="Run it again.")
    if status != 0:
        hint = f"What is there: korch describe pod {name}"
        raise CommandFailedError(
            f"{name} on {node}: {what} ended with status {status}", host=node, status=status, hint=hint
        )


# --- exec ---


@click.command(
    "exec",
    epilog=examples(
        "korch exec web-5d4f8-x2x9k -- ls -l /",
        "korch exec -it deploy/web -- sh              # in its first pod that is ready",
        "korch exec -i db-0 -- psql < dump.sql",
        "korch exec web-5d4f8-x2x9k -c sidecar -- ps",
        "Exit code: that of the command.",
    ),
)
@click.argument("name", metavar="POD")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND [ARG]...")
@click.option("-i", "--stdin", is_flag=True, help="Pass this command's input on.")
@click.option("-t", "--tty", is_flag=True, help="On a terminal of its own there.")
@click.option("-c", "--container", default="", metavar="NAME", help="In this container of the pod.")
@namespace_option
@cluster_options(short_inventory=False)
def exec_(name: str, argv: tuple[str, ...], stdin: bool, tty: bool, container: str, namespace: str) -> None:
    """Run a command in a pod's container."""
    if tty and not (on_terminal() and sys.stdout.isatty()):
        click.echo("There is no terminal here: going on without -t.", err=True)
        tty = False

    async def execute(client: Client) -> tuple[Pod, int]:
        pod = await _pod_to_enter(client, name, namespace)
        size = _terminal_size() if tty else None
        async with client.exec(pod, argv, stdin=stdin, pty=size, container=container) as stream:
            return pod, await _converse(stream, stdin=stdin, tty=tty)

    pod, status = run(execute)
    if status == -1:
        _check_status(pod, status, "the command")
    raise SystemExit(status)


async def _pod_to_enter(client: Client, name: str, namespace: str) -> Pod:
    """The named pod, or the first ready one of a deployment."""
    from korch.cli.refs import find_workload_or_pod, pods_of
    from korch.resources.podstate import is_ready

    target = await find_workload_or_pod(client, name, namespace)
    pods = [pod for pod in await pods_of(client, target) if pod.spec.node_name and pod.status.phase == "Running"]
    if not pods:
        raise NotFoundError(
            f"{name} has no running container", hint=f"See what it does: korch describe {_word(target)}"
        )
    return min(pods, key=lambda pod: (not is_ready(pod), pod.metadata.name))


def _word(target: object) -> str:
    from korch.cli.output import reference
    from korch.resources.meta import Object

    assert isinstance(target, Object)
    return reference(target)


def _terminal_size() -> tuple[int, int]:
    """(columns, lines) as they are: COLUMNS in the environment does not follow the window."""
    import os

    size = os.get_terminal_size(sys.stdin.fileno())
    return size.columns, size.lines


async def _converse(stream: Stream, *, stdin: bool, tty: bool) -> int:
    """The exit status, once all output has been copied; with `tty` every key goes there, Ctrl-C too."""
    feeder = asyncio.create_task(_feed(stream, sys.stdin.fileno()), name="exec-stdin") if stdin else None
    restore = _raw_terminal(stream) if tty else None
    try:
        outputs = {1: sys.stdout.buffer, 2: sys.stderr.buffer}
        async for channel, data in stream.chunks():
            outputs[channel].write(data)
            outputs[channel].flush()
        return await stream.wait()
    finally:
        if restore is not None:
            restore()
        if feeder is not None:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)


async def _feed(stream: Stream, fd: int) -> None:
    """Everything that can be read, then the end; no faster than the other side takes it."""
    import os

    while data := await _read(fd, os.read):
        await stream.write(data)
    await stream.write_eof()


async def _read(fd: int, read: Callable[[int, int], bytes]) -> bytes:
    """The next bytes, b"" at the end. Never leaves a thread behind that waits for a key."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not readable.done():
            readable.set_result(None)

    try:
        loop.add_reader(fd, wake)
    except PermissionError:  # a regular file, which epoll refuses and which never waits
        return read(fd, 65536)
    try:
        await readable
    finally:
        loop.remove_reader(fd)
    return read(fd, 65536)


def _raw_terminal(stream: Stream) -> Callable[[], None]:
    """Turns this terminal raw and passes changes of its size on; call the result to undo it."""
    import signal
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    loop = asyncio.get_running_loop()
    resizes: set[asyncio.Task[None]] = set()

    def resized() -> None:
        task = loop.create_task(stream.resize(*_terminal_size()))
        resizes.add(task)
        task.add_done_callback(resizes.discard)

    tty.setraw(fd)
    loop.add_signal_handler(signal.SIGWINCH, resized)

    def restore() -> None:
        loop.remove_signal_handler(signal.SIGWINCH)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

    return restore
