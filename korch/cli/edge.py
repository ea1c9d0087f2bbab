"""The one place where errors become words on stderr and an exit code.

Exit codes: 0 done, 1 unexpected, 2 usage, 130 Ctrl-C, 141 nobody reads the output any more, else that of the
`KorchError`. No traceback reaches the screen unless KORCH_DEBUG=1; unexpected ones go to a file under KORCH_HOME.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from korch.errors import KorchError, StoreError

_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_CRASHES_KEPT = 10


class EdgeGroup(click.Group):
    """A group that turns every exception into one clear sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a closed output is taken here, as click itself would end with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.exit(_output_closed())

    def main(self, args: Any = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the program and exit."""
        extra.pop("standalone_mode", None)
        try:
            result = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else 0  # what ctx.exit(N) was given
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted. Running the same command again is safe.", err=True)
            code = 130
        except BrokenPipeError:
            code = _output_closed()
        except Exception as error:
            cut_off = isinstance(error, ExceptionGroup) and error.subgroup(BrokenPipeError) is not None
            code = _output_closed() if cut_off else show_error(error)
        sys.exit(code)


def show_error(error: BaseException) -> int:
    """Writes the error for a person to read; the exit code that belongs to it."""
    if isinstance(error, BaseExceptionGroup):
        return max([show_error(each) for each in error.exceptions])
    code = _explain(error)
    if os.environ.get("KORCH_DEBUG"):
        click.echo(_traceback_of(error), err=True)
    return code


def _explain(error: BaseException) -> int:
    match error:
        case click.ClickException():
            error.show()
            return error.exit_code
        case KorchError():
            _say(str(error), error.hint)
            return error.exit_code
        case OSError() if error.errno is not None:
            return _explain_os_error(error)
        case _:
            where = _save_traceback(error)
            hint = f"The details are in {where}." if where else "Run it again with KORCH_DEBUG=1 to see the details."
            _say(f"korch failed in a way it did not expect: {type(error).__name__}: {error}".rstrip(": "), hint)
            return 1


def _explain_os_error(error: OSError) -> int:
    """`error` in a sentence: the file, what the system says, what to do about the usual ones."""
    says = (error.strerror or os.strerror(error.errno or 0)).lower()
    about = f"{os.fsdecode(error.filename)}: {says}" if isinstance(error.filename, str | bytes) else says
    if error.errno in _DISK_TROUBLE:
        _say(
            about,
            "Make room there, or point KORCH_HOME at a folder that can be written; then run the same command again.",
        )
        return StoreError.exit_code
    if about != says and _is_in_home(os.fsdecode(error.filename)):
        _say(about, "korch keeps its things there: point KORCH_HOME at a folder of yours that can be written.")
        return StoreError.exit_code
    hints = {
        errno.EACCES: "Check the owner and the mode of that path, or point KORCH_HOME at a folder of yours.",
        errno.EMFILE: "Too many open files: raise the limit with `ulimit -n 4096`.",
    }
    _say(about, hints.get(error.errno or 0, ""))
    return 1


def _is_in_home(path: str) -> bool:
    from korch.settings import korch_home

    home = str(korch_home())
    return path == home or path.startswith(home + os.sep) or home.startswith(path + os.sep)


def _say(message: str, hint: str) -> None:
    from korch.cli.output import clean

    click.echo(f"Error: {clean(message, keep_newlines=True)}", err=True)
    if hint:
        click.echo(f"Hint: {clean(hint, keep_newlines=True)}", err=True)


def _output_closed() -> int:
    """Whoever read our output has left (`| head`): be quiet, also when the interpreter flushes at its end."""
    try:
        ours = sys.stdout.fileno()
    except (OSError, ValueError):
        return 141  # no file of the system: nothing will be flushed
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, ours)
    os.close(nowhere)
    return 141


def _traceback_of(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _save_traceback(error: BaseException) -> str:
    """The path of the file that now holds the traceback (no arguments: they may hold secrets); "" if that failed."""
    import time

    from korch import __version__
    from korch.settings import korch_home

    home = korch_home()
    path = home / f"crash-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(home.glob("crash-*.txt"))[: 1 - _CRASHES_KEPT]:
            old.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(f"korch {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n{_traceback_of(error)}")
    except OSError:
        return ""
    return str(path)
