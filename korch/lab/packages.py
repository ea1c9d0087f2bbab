"""Installs the Debian packages that the tests and the demo need: `python -m korch.lab.packages SECTION`.

The list is packages.txt. A machine that has them all is left alone, within milliseconds. No service is started.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from korch.errors import InvalidError, KorchError, SetupError
from korch.lab.machine import CLEAN_ENV, missing_programs, program

LIST = Path(__file__).parents[2] / "packages.txt"
POLICY = Path("/usr/sbin/policy-rc.d")
# Debian's way to say "start nothing" (invoke-rc.d(8)); the comment is how a later run knows a leftover of a killed one.
_POLICY_TEXT = "#!/bin/sh\n# korch: no services while packages are installed\nexit 101\n"


def read_list(text: str) -> dict[str, tuple[str, ...]]:
    """Package names by `[section]`; `#` starts a comment, and `NAME?` is for releases that have such a package."""
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if word.startswith("[") and word.endswith("]"):
            current = sections.setdefault(word[1:-1], [])
        elif word and current is not None and " " not in word:
            current.append(word)
        elif word:
            raise InvalidError(f'packages.txt:{number}: "{word}" is no package in a section', hint="One name a line.")
    return {name: tuple(words) for name, words in sections.items()}


def missing_packages(wanted: Sequence[str], dpkg_answer: str) -> tuple[str, ...]:
    """Wanted packages that dpkg's answer, lines of `NAME STATUS`, does not call installed. `NAME?` is never missing."""
    installed = {line.split(" ")[0] for line in dpkg_answer.splitlines() if line.endswith(" installed")}
    return tuple(name for name in wanted if name not in installed and not name.endswith("?"))


def ensure(wanted: Sequence[str], *, policy: Path = POLICY) -> tuple[str, ...]:
    """Install what is missing and return it; SetupError where that cannot be done."""
    if not sys.platform.startswith("linux"):
        raise SetupError(f"the lab needs Linux: this machine runs {sys.platform}", hint="make check runs everywhere.")
    if program("dpkg-query") is None or program("apt-get") is None:
        return _accept_other_system()
    missing = missing_packages(wanted, _query(wanted))
    if not missing:
        return ()
    if os.geteuid() != 0:
        raise SetupError(
            f"packages are missing and only root can install them: {' '.join(missing)}",
            hint=f"sudo apt-get install --no-install-recommends {' '.join(missing)}",
        )
    optional = [name.rstrip("?") for name in wanted if name.endswith("?")]
    with services_held(policy):
        _install(missing, optional)
    return missing


@contextmanager
def services_held(policy: Path) -> Iterator[None]:
    """While this lasts no package starts a service. A policy that the machine's owner made is left as it is."""
    own = not policy.exists() or policy.read_text() == _POLICY_TEXT
    if own:
        policy.write_text(_POLICY_TEXT)
        policy.chmod(0o755)
    try:
        yield
    finally:
        if own:
            policy.unlink(missing_ok=True)


def _accept_other_system() -> tuple[str, ...]:
    missing = missing_programs(("docker", "podman"))
    if missing:
        raise SetupError(
            f"this is no Debian-like system, and these programs are missing: {', '.join(missing)}",
            hint="Install them with the system's own package manager; packages.txt has Debian's names.",
        )
    return ()


def _query(wanted: Sequence[str]) -> str:
    names = [name for name in wanted if not name.endswith("?")]
    words = ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names)
    return subprocess.run(words, capture_output=True, text=True, env=CLEAN_ENV, check=False).stdout


def _install(names: Sequence[str], optional: Sequence[str]) -> None:
    """Install these, and of the optional ones those that this release of the system has."""
    lock = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0")
    for refresh in (False, True):  # no package lists yet, or so old that the files they name are gone
        if refresh and _apt("update", "-qq", *lock) != 0:
            break
        if all(map(_is_known, names)):
            words = [*names, *filter(_is_known, optional)]
            if _apt("install", "-y", "-qq", "--no-install-recommends", *lock, *words) == 0:
                return
    raise SetupError(
        f"apt-get could not install {' '.join(names)}", hint="Its messages are above; is the package mirror reachable?"
    )


def _is_known(name: str) -> bool:
    done = subprocess.run(("apt-cache", "show", name), capture_output=True, env=CLEAN_ENV, check=False)
    return done.returncode == 0


def _apt(*words: str) -> int:
    environment = {**os.environ, **CLEAN_ENV, "DEBIAN_FRONTEND": "noninteractive"}  # keeps proxy settings
    return subprocess.run(("apt-get", *words), stdout=sys.stderr, env=environment, check=False).returncode


def main(words: Sequence[str]) -> int:
    """Exit status: 0 when all is there, else that of the error."""
    try:
        sections = read_list(LIST.read_text())
        unknown = [name for name in words if name not in sections]
        if unknown or not words:
            raise InvalidError(f"no such section: {' '.join(unknown)}", hint=f"Known: {', '.join(sections)}")
        installed = ensure(sorted({package for name in words for package in sections[name]}))
    except KorchError as error:
        print(f"Error: {error}", file=sys.stderr)
        if error.hint:
            print(f"Hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    if installed:
        print(f"installed {' '.join(installed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
