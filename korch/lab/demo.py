"""`make demo`: korch's main job on three real SSH hosts made on the spot. What is shown is what a person would type."""

import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from korch.errors import KorchError
from korch.lab.lab import Lab
from korch.lab.spec import NodeSpec
from korch.settings import korch_home

APP = """\
name: web
image: {image}
ports: ["8080"]            # a free port of each node leads to 8080
health: {{http: /healthz}}
resources: {{cpu: 100m, memory: 32Mi}}
"""
NODES = ("n1", "n2", "n3")


def main() -> int:
    """Run the demo; KEEP=1 leaves the lab up."""
    lab = Lab("lab")
    keep = os.environ.get("KEEP") == "1"
    try:
        return _show(lab, keep)
    except KorchError as error:
        print(f"Error: {error}\nHint: {error.hint}" if error.hint else f"Error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        if not keep:
            _clean(lab)


def _show(lab: Lab, keep: bool) -> int:
    _say("Three hosts, each with its own sshd, Docker, load and memory:")
    _print_command("korch lab up --nodes 3")
    status = lab.up([NodeSpec(name, "docker") for name in NODES])
    for node in status.nodes:
        print(f"{node.name}  {node.address}  {node.engine}  {node.state}")
    app = lab.folder / "app"
    app.mkdir(exist_ok=True)
    (app / "korch.yml").write_text(APP.format(image=lab.image("1")))
    _say("Give one of them something to do, so that they differ:")
    _print_command("korch lab burn n2")
    lab.burn("n2", tasks=3, seconds=60)
    _say("What korch sees of them, over SSH, with nothing installed there:")
    _run("korch nodes -i lab", app)
    _say("The app, in korch.yml:")
    _print_command("cat korch.yml")
    print((app / "korch.yml").read_text(), end="")
    _say("One command:")
    if _run("korch deploy -i lab --replicas 3", app):
        return 1
    _say("Why there?")
    _run("korch why -i lab web", app)
    _say("And where would three more go?")
    _run("korch whatif -i lab web --replicas 6", app)
    _say("A page from each replica, over the network:")
    for address in _addresses(app):
        _print_command(f"curl {address}")
        print(_fetch(address), end="")
    if keep:
        print(f"\nThe lab is still up. Try:\n{next_steps(lab, app, status.nodes[0].address)}")
    return 0


def next_steps(lab: Lab, app: Path, address: str) -> str:
    """What to type while the lab is up, from any shell."""
    home = f" KORCH_HOME={shlex.quote(os.environ['KORCH_HOME'])}" if os.environ.get("KORCH_HOME") else ""
    lines = [
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH KORCH_CLUSTER={lab.name}{home}",
        f"cd {shlex.quote(str(app))}",
        "sed -i s/web:1/web:2/ korch.yml; korch deploy          # another version, one replica at a time",
        "korch lab kill n1; korch nodes; korch sync --failover  # a machine dies",
        "korch lab start n1; korch sync                         # and is back",
        f"ssh -F none -i {lab.ssh_key} -o UserKnownHostsFile={lab.known_hosts} root@{address} docker ps",
        "korch lab down; korch cluster rm --force --yes         # the end",
    ]
    return "\n".join(f"  {line}" for line in lines)


def _say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def _print_command(command: str) -> None:
    print(f"$ {command}", flush=True)


def _run(command: str, folder: Path) -> int:
    """Run a korch command as a person in the app's folder would."""
    _print_command(command)
    return subprocess.run(_argv(command), cwd=folder, check=False).returncode


def _argv(command: str) -> Sequence[str]:
    return [sys.executable, "-m", *shlex.split(command)]


def _addresses(folder: Path) -> list[str]:
    """Where the replicas are reached, as `korch get pods -o json` has it."""
    import json

    answer = subprocess.run(
        _argv("korch get pods -i lab -o json"), cwd=folder, check=True, capture_output=True, text=True
    )
    found = []
    for pod in json.loads(answer.stdout)["items"]:
        for status in pod["status"].get("containerStatuses", []):
            found += [f"http://{port['hostIP']}:{port['hostPort']}" for port in status.get("published", [])]
    return found


def _fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 (an address of the lab)
        text: str = answer.read().decode()
    return text


def _clean(lab: Lab) -> None:
    """Take the lab down, and forget the cluster that was made on it."""
    import shutil

    lab.down()
    shutil.rmtree(korch_home() / "clusters" / "lab", ignore_errors=True)
    print("\nThe lab is gone (KEEP=1 make demo leaves it up).")


if __name__ == "__main__":
    sys.exit(main())
