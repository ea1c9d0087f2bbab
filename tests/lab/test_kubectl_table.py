"""docs/KUBECTL.md says the truth: each of its lines is run, in order, on real nodes of both engines."""

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from korch.lab.machine import CLEAN_ENV
from tests.kubetools import HELM, KUBECTL, tool
from tests.lab.faulty import Faulty, wait_for
from tests.lab.mastering import mastered
from tests.lab.test_api_access import let_in

DOC = Path(__file__).parents[2] / "docs" / "KUBECTL.md"
FILES = Path(__file__).parent / "table"
LASTS_S = 2.0  # what lasts must not have ended by then

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not (HELM and KUBECTL), reason="there is no helm or no kubectl")]


@dataclass(frozen=True)
class Row:
    section: str
    command: str
    says: str


def rows() -> Iterator[Row]:
    section = ""
    for line in DOC.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif found := re.match(r"\| `([^`]+)` \| (.*)\|$", line):
            yield Row(section, found[1], found[2].strip())


class Runner:
    """The programs in a folder with the files; words of the document become those of this lab."""

    def __init__(self, site: Faulty, folder: Path, kubectl: str) -> None:
        self._site, self._folder = site, folder
        self._programs = {"kubectl": kubectl, "helm": HELM}
        shutil.copytree(FILES, folder, dirs_exist_ok=True)
        for path in folder.rglob("*.yml"):
            path.write_text(path.read_text().replace("IMAGE", site.image()))
        self._env = {
            **CLEAN_ENV,
            "HOME": str(folder),
            "KUBECONFIG": str(let_in(site, "root").config),
            "KUBE_EDITOR": "sed -i 's/minReadySeconds: 1/minReadySeconds: 0/'",
        }

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """An ended run."""
        return subprocess.run(
            self._words(command),
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def lasts(self, command: str) -> None:
        """It goes on until it is ended."""
        process = subprocess.Popen(
            self._words(command), cwd=self._folder, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + LASTS_S
            while time.monotonic() < deadline:
                assert process.poll() is None, (command, process.communicate()[0])
                time.sleep(0.1)
        finally:
            process.kill()
            process.communicate()

    def _words(self, command: str) -> list[str]:
        program, *words = shlex.split(command)
        repository, _, tag = self._site.image().rpartition(":")
        known = {"IMAGE": self._site.image(), "NODE": self._site.nodes[0], "REPOSITORY": repository, "TAG": tag}
        if re.search(r"\bPOD\b", command):
            known["POD"] = self._pod()
        said = [re.sub(r"\b(IMAGE|NODE|REPOSITORY|TAG|POD)\b", lambda found: known[found[0]], word) for word in words]
        return [self._programs[program], *said]

    def _pod(self) -> str:
        found = self.run(
            "kubectl get pods -l app=web --field-selector=status.phase=Running -o jsonpath={.items[*].metadata.name}"
        )
        return found.stdout.split()[0]


@pytest.mark.parametrize("minor", ["37", "32"])
def test_every_line_of_the_tables(faulty: Faulty, tmp_path: Path, minor: str) -> None:
    program = tool("kubectl", minor) or (KUBECTL if minor == "37" else "")
    if not program:
        pytest.skip(f"there is no kubectl 1.{minor}")
    with mastered(faulty):
        runner = Runner(faulty, tmp_path, program)
        ran = 0
        for row in rows():
            if row.section == "helm" and minor != "37":
                continue  # one helm is enough
            check(runner, row)
            ran += 1
        assert ran > 80
        wait_for("the containers to go", lambda: not faulty.seen(), timeout_s=60)


def check(runner: Runner, row: Row) -> None:
    """Run one row; what it says of itself must be so."""
    if row.says.startswith("lasts"):
        runner.lasts(row.command)
        return
    done = runner.run(row.command)
    if row.section == "Refused":
        assert done.returncode != 0, row
        assert row.says in done.stderr, (row, done.stderr)
    elif "top" in row.command.split():
        wait_for(row.command, lambda: runner.run(row.command).returncode == 0, timeout_s=60)
    elif row.command.startswith("kubectl diff"):
        assert done.returncode == 1, (row, done)
    else:
        assert done.returncode == 0, (row, done)
        if row.says == "yes":
            assert done.stdout == "yes\n"
        if row.command.startswith("kubectl edit"):
            assert "edited" in done.stdout, done
