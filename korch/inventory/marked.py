"""YAML values that remember file and line, so that a mistake can be shown where it stands.

Values are built from PyYAML's node tree and not by its constructor, which forgets lines and lets the second of two
equal keys win in silence.
"""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Literal

import msgspec
import yaml
from msgspec.structs import replace

from korch.errors import InvalidError

_MAP, _SEQ = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
_MERGE = "tag:yaml.org,2002:merge"
_VAULT_TAGS = {"!vault", "!vault-encrypted"}
_STANDARD = "tag:yaml.org,2002:"


class Place(msgspec.Struct, frozen=True):
    """Where something was written. Line 0: only the source is known."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """As compilers write it: `hosts.yml:12`."""
        return f"{self.file}:{self.line}" if self.line else self.file


class Marked(msgspec.Struct, frozen=True):
    """A value and where its key (or itself) stands. Maps and lists hold `Marked` again.

    `raw` is a scalar as it was written. `kind`: "unsafe" is text that is never a template, "vault" is encrypted.
    """

    value: object
    place: Place
    raw: str = ""
    kind: Literal["plain", "unsafe", "vault"] = "plain"

    def mapping(self) -> dict[Hashable, "Marked"] | None:
        """The value when it is a map."""
        return self.value if isinstance(self.value, dict) else None

    def items(self) -> list["Marked"] | None:
        """The value when it is a list."""
        return self.value if isinstance(self.value, list) else None


def fault(place: Place, message: str, *, hint: str = "") -> InvalidError:
    """An error that begins with file and line."""
    return InvalidError(f"{place}: {message}", hint=hint)


def from_plain(value: object, place: Place) -> Marked:
    """JSON of `ansible-inventory` as `Marked`, all at one place."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_vault"}:
            return Marked(None, place, kind="vault")
        if set(value) == {"__ansible_unsafe"}:
            return Marked(value["__ansible_unsafe"], place, kind="unsafe")
        return Marked({key: from_plain(item, place) for key, item in value.items()}, place)
    if isinstance(value, list):
        return Marked([from_plain(item, place) for item in value], place)
    return Marked(value, place)


def read_text(path: Path) -> str:
    """The file as text; unreadable or not UTF-8 is the user's to mend."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error


def load_yaml(path: Path) -> Marked | None:
    """The one document of a YAML (or JSON) file; None when it is empty."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, file: str) -> Marked | None:
    """As `load_yaml`, for text. An Ansible Vault file gives a value of kind "vault"."""
    if text.startswith("$ANSIBLE_VAULT;"):
        return Marked(None, Place(file, 1), kind="vault")
    try:
        root = yaml.compose(_without_json_tabs(text), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_fault(error, text, file) from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise InvalidError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    return None if root is None else _Builder(file).build(root)


def _without_json_tabs(text: str) -> str:
    """JSON may be indented with tabs, YAML may not; inside JSON strings a raw tab is illegal, so none is lost here."""
    if "\t" not in text or not text.lstrip().startswith("{"):
        return text
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")


def _syntax_fault(error: yaml.MarkedYAMLError, text: str, file: str) -> InvalidError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    lines = text.splitlines()
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    why = " ".join(part for part in (error.context, error.problem) if part)
    hint = "Look at the indentation of this line and the one before, and for a missing `:` or quote."
    if "\t" in shown:
        hint = "YAML is indented with spaces; this line holds a tab."
    return fault(Place(file, line), f"is not valid YAML: {why}", hint=hint)


class _Builder:
    """One pass over the nodes of one file. Aliased nodes are built once; a node inside itself is refused."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.built: dict[int, Marked] = {}
        self.open: set[int] = set()
        self.scalars = yaml.constructor.SafeConstructor()

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def build(self, node: yaml.Node) -> Marked:
        if id(node) in self.open:
            raise fault(self.place(node), "an alias (*name) stands inside its own anchor (&name)")
        if id(node) not in self.built:
            self.open.add(id(node))
            self.built[id(node)] = self._build(node)
            self.open.discard(id(node))
        return self.built[id(node)]

    def _build(self, node: yaml.Node) -> Marked:
        place = self.place(node)
        if node.tag in _VAULT_TAGS:
            return Marked(None, place, kind="vault")
        if isinstance(node, yaml.MappingNode) and node.tag in {_MAP, "!unsafe"}:
            return Marked(self._mapping(node), place)
        if isinstance(node, yaml.SequenceNode) and node.tag in {_SEQ, "!unsafe"}:
            return Marked([self.build(item) for item in node.value], place)
        if isinstance(node, yaml.ScalarNode) and node.tag == "!unsafe":
            return Marked(node.value, place, raw=node.value, kind="unsafe")
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_STANDARD):
            return Marked(self._scalar(node), place, raw=node.value)
        raise fault(place, f"YAML tag {node.tag} is not supported in an inventory")

    def _scalar(self, node: yaml.ScalarNode) -> object:
        try:
            return self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise fault(self.place(node), f"{node.value!r} is not a value that YAML can read: {error}") from error

    def _mapping(self, node: yaml.MappingNode) -> dict[Hashable, Marked]:
        own: dict[Hashable, Marked] = {}
        merged: dict[Hashable, Marked] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for source in reversed(self._merge_sources(value_node)):
                    merged.update(source)
                continue
            key, place = self._key(key_node), self.place(key_node)
            if key in own:
                raise fault(
                    place,
                    f'key "{key}" stands here twice; the first is in line {own[key].place.line}',
                    hint="YAML would let the last one win in silence: join them or remove one.",
                )
            own[key] = replace(self.build(value_node), place=place)
        return {**{key: value for key, value in merged.items() if key not in own}, **own}

    def _merge_sources(self, node: yaml.Node) -> list[dict[Hashable, Marked]]:
        """What `<<:` pulls in: the first of several maps wins."""
        built = self.build(node)
        candidates = built.items() if built.items() is not None else [built]
        maps = [candidate.mapping() for candidate in candidates or []]
        if any(found is None for found in maps):
            raise fault(self.place(node), "`<<:` needs a map or a list of maps")
        return [found for found in maps if found is not None]

    def _key(self, node: yaml.Node) -> Hashable:
        if not isinstance(node, yaml.ScalarNode):
            raise fault(
                self.place(node),
                "a map or list stands where a key is expected",
                hint="A value that begins with {{ or [ must be quoted.",
            )
        key = self._scalar(node)
        return key if isinstance(key, Hashable) else str(key)
