"""Ansible's YAML inventories, read without Ansible: files, folders, `group_vars/` and `host_vars/`."""

import re
from collections.abc import Mapping
from pathlib import Path

from korch.errors import InvalidError
from korch.inventory.hostnames import expand_host_pattern
from korch.inventory.marked import Marked, Place, fault, load_yaml, read_text
from korch.inventory.tree import Tree, as_text, did_you_mean, relocated

YAML_SUFFIXES = (".yml", ".yaml", ".json")
# What Ansible skips in an inventory folder: INVENTORY_IGNORE_EXTS and the folders of variables.
_IGNORED = re.compile(
    r"^\.|^(host_vars|group_vars|vars_plugins)$|(\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)$"
)


def inventory_files(source: Path) -> list[Path]:
    """The files that an inventory folder consists of, as Ansible picks and sorts them; a file is its own list."""
    if not source.is_dir():
        return [source]
    entries = sorted(source.iterdir(), key=lambda path: path.name)
    return [file for path in entries if not _IGNORED.search(path.name) for file in inventory_files(path)]


def why_not_native(file: Path) -> str:
    """Why only Ansible can read this file; "" when `read_inventory_file` can."""
    if file.suffix not in YAML_SUFFIXES and file.suffix:
        return f"{file} is not YAML"
    text = read_text(file)
    if text.startswith("#!"):
        return f"{file} is a script"
    if file.suffix:
        return f"{file} configures an inventory plugin" if re.search(r"(?m)^plugin\s*:", text) else ""
    try:
        root = load_yaml(file)
    except InvalidError:
        return f"{file} is not YAML"
    return "" if root is None or root.mapping() is not None or root.kind == "vault" else f"{file} is not YAML"


def read_inventory_file(file: Path, tree: Tree) -> None:
    """Add the groups and hosts of one file to the tree. An empty file adds nothing."""
    root = load_yaml(file)
    if root is None or (root.kind == "plain" and root.value is None):
        return
    if root.kind == "vault":
        raise fault(root.place, "the inventory is encrypted with Ansible Vault", hint="Encrypt values, not the hosts.")
    groups = root.mapping()
    if groups is None:
        raise fault(root.place, "an inventory is a map of groups", hint="It begins with `all:` and below it `hosts:`.")
    reader = _Reader(tree, file.absolute())
    for key, body in groups.items():
        reader.group(as_text(key, body.place, "group name"), body, nested=False)


class _Reader:
    def __init__(self, tree: Tree, file: Path) -> None:
        self.tree, self.file = tree, file

    def group(self, name: str, body: Marked, *, nested: bool) -> None:
        """A group at the top of the file or below `children:`, where a bare name only points to a group."""
        if body.value is None and body.kind == "plain":
            if not nested:
                self.tree.define_group(name, body.place)
            return
        sections = body.mapping()
        if sections is None:
            raise fault(body.place, f'group "{name}" must be a map with hosts, children or vars')
        self.tree.define_group(name, body.place)
        for key, section in sections.items():
            match key:
                case "hosts":
                    self.hosts(name, section)
                case "children":
                    self.children(name, section)
                case "vars":
                    self.vars(name, section)
                case _:
                    raise fault(
                        section.place,
                        f'group "{name}": unexpected key "{key}"'
                        f"{did_you_mean(str(key), ('hosts', 'children', 'vars'))}",
                        hint="A group has hosts, children and vars; hosts are written below `hosts:`.",
                    )

    def hosts(self, group: str, section: Marked) -> None:
        for pattern, body in self.entries(section, f'hosts of group "{group}"').items():
            try:
                names, port = expand_host_pattern(pattern)
            except InvalidError as error:
                raise relocated(error, body.place) from error
            values = self.entries(body, f'host "{pattern}"', what="variable")
            for name in names:
                self.host(name, group, body.place, port, values)

    def host(self, name: str, group: str, place: Place, port: int | None, values: Mapping[str, Marked]) -> None:
        known = name in self.tree.hosts
        self.tree.add_host(name, group, place, self.file)
        if port is not None and not known:
            self.tree.set_host_var(name, "ansible_port", Marked(port, place))
        for key, value in values.items():
            self.tree.set_host_var(name, key, value)

    def children(self, group: str, section: Marked) -> None:
        for child, body in self.entries(section, f'children of group "{group}"').items():
            self.tree.add_child(group, child, body.place)
            self.group(child, body, nested=True)

    def vars(self, group: str, section: Marked) -> None:
        for key, value in self.entries(section, f'vars of group "{group}"', what="variable").items():
            self.tree.set_group_var(group, key, value)

    def entries(self, section: Marked, where: str, *, what: str = "name") -> dict[str, Marked]:
        """A map with text keys; a single word counts as a map with that key, nothing as an empty map."""
        if section.value is None and section.kind == "plain":
            return {}
        if isinstance(section.value, str) and what == "name":
            return {section.value: Marked(None, section.place)}
        found = section.mapping()
        if found is None:
            hint = "Write `name:` on lines of their own, not `- name`." if section.items() is not None else ""
            raise fault(section.place, f"{where} must be a map", hint=hint)
        return {as_text(key, value.place, what): value for key, value in found.items()}


class VarFolders:
    """`group_vars/` and `host_vars/` beside an inventory source; each file is read once, when first asked for."""

    def __init__(self, source: Path) -> None:
        self.base = (source if source.is_dir() else source.parent).resolve()
        self.shown = source if source.is_dir() else source.parent
        self.encrypted: list[str] = []
        self._read: dict[tuple[str, str], dict[str, Marked]] = {}

    def group(self, name: str) -> Mapping[str, Marked]:
        """Variables of the files for that group."""
        return self._vars("group_vars", name)

    def host(self, name: str) -> Mapping[str, Marked]:
        """Variables of the files for that host."""
        return self._vars("host_vars", name)

    def _vars(self, folder: str, name: str) -> dict[str, Marked]:
        if (folder, name) not in self._read:
            merged: dict[str, Marked] = {}
            for file in [] if "/" in name else _vars_files(self.shown / folder, name):
                merged.update(self._load(file))
            self._read[folder, name] = merged
        return self._read[folder, name]

    def _load(self, file: Path) -> dict[str, Marked]:
        root = load_yaml(file)
        if root is None or (root.kind == "plain" and root.value is None):
            return {}
        if root.kind == "vault":
            self.encrypted.append(str(file))
            return {}
        found = root.mapping()
        if found is None:
            raise fault(root.place, "a file of variables is a map of names and values")
        return {as_text(key, value.place, "variable"): value for key, value in found.items()}


def _vars_files(folder: Path, name: str) -> list[Path]:
    """The first of NAME (file or folder), NAME.yml, NAME.yaml, NAME.json; all files of a folder, sorted."""
    for suffix in ("", *YAML_SUFFIXES):
        path = folder / f"{name}{suffix}"
        if path.is_dir():
            return _files_below(path)
        if path.exists():
            return [path]
    return []


def _files_below(folder: Path) -> list[Path]:
    files: list[Path] = []
    for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir() and not path.suffix:
            files += _files_below(path)
        elif path.is_file() and (not path.suffix or path.suffix in YAML_SUFFIXES):
            files.append(path)
    return files
