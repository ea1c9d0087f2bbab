"""`ansible-inventory --list` as a long-lived program: one JSON question a line, one JSON answer a line.

Run as a script it answers; imported it gives `Oracle`. Starting Ansible costs a second, asking it again milliseconds.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class Oracle:
    """Ansible's own reading of inventories and patterns."""

    def __init__(self, folder: Path) -> None:
        environ = {**os.environ, "ANSIBLE_HOME": str(folder), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "no"}
        environ["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "true"
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
            stderr=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip

    def ask(self, sources: list[str], patterns: list[str] | None = None) -> dict:
        """{"list": what `ansible-inventory --list` prints, "select": {pattern: [host] or null for an error}}."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"sources": sources, "patterns": patterns or []}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()


def _listed(sources: list[str]) -> dict:
    from ansible.cli.inventory import InventoryCLI

    words = [word for source in sources for word in ("-i", source)]
    with tempfile.NamedTemporaryFile() as output:
        try:
            InventoryCLI(["ansible-inventory", *words, "--list", "--output", output.name]).run()
        except SystemExit as end:
            if end.code:
                raise
        return json.loads(Path(output.name).read_bytes())


def _selected(sources: list[str], patterns: list[str]) -> dict:
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader

    manager = InventoryManager(DataLoader(), sources=sources)
    found: dict = {}
    for pattern in patterns:
        try:
            found[pattern] = [host.name for host in manager.get_hosts(pattern)]
        except Exception:
            found[pattern] = None
    return found


def main() -> None:
    """Each question is answered by a fork: Ansible keeps much in globals, and its imports are what takes long."""
    import ansible.cli.inventory
    import ansible.inventory.manager
    import ansible.parsing.dataloader  # noqa: F401

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        asked = json.loads(line)
        try:
            answer = {"list": _listed(asked["sources"]), "select": _selected(asked["sources"], asked["patterns"])}
        except BaseException as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), file=out, flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
