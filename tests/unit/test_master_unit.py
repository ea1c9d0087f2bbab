"""The service that playbooks/master.yml installs."""

import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
TEMPLATE = PLAYBOOKS / "roles" / "master" / "templates" / "korch-master.service.j2"


def rendered(**values: str) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(TEMPLATE.read_text()).render(values)


def test_its_words_are_those_of_the_command() -> None:
    text = rendered(master_cluster="prod", master_options="--metrics-port 9639")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = line.partition("=")[2].split()
    assert words[:2] == ["/opt/korch/bin/korch", "master"]
    done = subprocess.run(
        [sys.executable, "-m", "korch.cli.main", *words[1:], "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Type=notify" in text.splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_it(tmp_path: Path) -> None:
    unit = tmp_path / "korch-master.service"
    text = rendered(master_cluster="default", master_options="")
    unit.write_text(text.replace("/opt/korch/bin/korch", sys.executable).replace("User=korch", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    assert done.returncode == 0, done.stderr
    assert complaints == []


def test_ansible_understands_the_playbook() -> None:
    program = Path(sys.executable).parent / "ansible-playbook"
    words = [str(program), "-i", "host,", "--syntax-check", str(PLAYBOOKS / "master.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
