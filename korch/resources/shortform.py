"""`korch.yml`: the short form for people, read into `App` values. Every mistake comes with its file and line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from korch.errors import InvalidError
from korch.resources.app import App, Health, parse_duration, parse_mount, parse_port
from korch.resources.manifests import did_you_mean, raise_mistakes
from korch.resources.names import dns_label_problem, env_name_problem, image_problem, text_problem
from korch.resources.quantity import cpu_millis, memory_bytes
from korch.resources.yamltree import Tree, load_trees


def is_short_form(document: Tree | Mapping[str, Any]) -> bool:
    """Whether a document is the short form: a mapping without apiVersion and kind."""
    found = document.value if isinstance(document, Tree) else document
    return isinstance(found, Mapping) and not ("apiVersion" in found or "kind" in found)


def load_apps(text: str, source: str) -> tuple[tuple[App, str], ...]:
    """The apps of a file, each with its FILE:LINE; `InvalidError` lists all mistakes."""
    return apps_of(load_trees(text, source), source)


def apps_of(trees: list[Tree], source: str) -> tuple[tuple[App, str], ...]:
    """As `load_apps`, from documents that are parsed already."""
    mistakes: list[str] = []
    apps = [(_read_app(tree, source, mistakes), f"{source}:{tree.line}") for tree in trees]
    if not apps:
        mistakes.append(f"{source}: is empty; name and image are needed")
    raise_mistakes(source, mistakes)
    return tuple(apps)


def _read_app(tree: Tree, source: str, mistakes: list[str]) -> App:
    reader = _Reader(tree, source, "", mistakes)
    given = reader.read(_KEYS)
    for name in ("name", "image"):
        if name not in given:
            if not reader.has(name):
                reader.mistake(tree.line, f"{name} is missing")
            given[name] = "-"
    resources = given.pop("resources", {})
    return App(**given, **resources)


@dataclass(slots=True)
class _Reader:
    """One mapping of the file."""

    tree: Tree
    source: str
    path: str
    mistakes: list[str]
    seen: set[str] = field(default_factory=set)

    def mistake(self, line: int, message: str) -> None:
        self.mistakes.append(f"{self.source}:{line}: {message}")

    def has(self, key: str) -> bool:
        return isinstance(self.tree.value, dict) and key in self.tree.value

    def read(self, keys: "Mapping[str, _Key]") -> dict[str, Any]:
        """The values of known keys; what cannot be read is noted and left out."""
        if not isinstance(self.tree.value, dict):
            self.mistake(self.tree.line, f"{self.path or 'this file'} must be a mapping of keys, not {self.tree.kind}")
            return {}
        found: dict[str, Any] = {}
        for name, item in self.tree.value.items():
            line, where = self.tree.lines[name], f"{self.path}.{name}" if self.path else name
            key = keys.get(name)
            if key is None:
                self.mistake(line, f'"{where}" is not a key of korch.yml{did_you_mean(name, keys)}')
                continue
            if item.value is None:
                self.mistake(line, f"{where} has no value")
                continue
            try:
                found[key.field] = key.read(item, where, self)
            except InvalidError as error:
                self.mistake(_innermost(item, line), " ".join(filter(None, (f"{where}: {error}", _advice(error)))))
        return found


def _innermost(item: Tree, line: int) -> int:
    return item.line if not isinstance(item.value, dict | list) else line


def _advice(error: InvalidError) -> str:
    return f"({error.hint})" if error.hint else ""


class _Key(msgspec.Struct, frozen=True):
    """How a key is read, and into which field of the value it goes."""

    field: str
    read: Callable[[Tree, str, _Reader], Any]


# --- readers of values: raise InvalidError, or note mistakes with lines of their own ---


def _text(tree: Tree, where: str, _: _Reader) -> str:
    """As written: `1.10`, `yes` and `8080` need no quotes."""
    if isinstance(tree.value, dict | list) or tree.value is None:
        raise InvalidError(f"must be text, not {tree.kind}")
    text = tree.value if isinstance(tree.value, str) else tree.text
    if problem := text_problem(text):
        raise InvalidError(problem)
    return text


def _judged(problem_of: Callable[[str], str]) -> Callable[[Tree, str, _Reader], str]:
    def read(tree: Tree, where: str, reader: _Reader) -> str:
        text = _text(tree, where, reader)
        if problem := problem_of(text):
            raise InvalidError(problem)
        return text

    return read


def _quantity(read_amount: Callable[[str], int]) -> Callable[[Tree, str, _Reader], str]:
    def read(tree: Tree, where: str, reader: _Reader) -> str:
        text = _text(tree, where, reader)
        read_amount(text)
        return text

    return read


def _shown(tree: Tree) -> str:
    return f'"{tree.text}"' if tree.text else tree.kind


def _count(tree: Tree, where: str, _: _Reader) -> int:
    if not isinstance(tree.value, int) or isinstance(tree.value, bool) or tree.value < 0:
        raise InvalidError(f"must be a whole number, not {_shown(tree)}")
    return tree.value


def _flag(tree: Tree, where: str, _: _Reader) -> bool:
    if not isinstance(tree.value, bool):
        raise InvalidError(f"must be true or false, not {_shown(tree)}")
    return tree.value


def _duration(tree: Tree, where: str, reader: _Reader) -> int:
    return parse_duration(_text(tree, where, reader))


def _choice(*words: str) -> Callable[[Tree, str, _Reader], str]:
    def read(tree: Tree, where: str, reader: _Reader) -> str:
        text = _text(tree, where, reader)
        if text not in words:
            raise InvalidError(f'"{text}" is not one of {", ".join(words)}')
        return text

    return read


def _items(tree: Tree) -> list[Tree]:
    """The items of a list; a single scalar is a list of one."""
    if isinstance(tree.value, dict):
        raise InvalidError(f"must be a list, not {tree.kind}")
    return tree.value if isinstance(tree.value, list) else [tree]


def _each(read_item: Callable[[str], Any]) -> Callable[[Tree, str, _Reader], tuple[Any, ...]]:
    def read(tree: Tree, where: str, reader: _Reader) -> tuple[Any, ...]:
        found = []
        for item in _items(tree):
            try:
                found.append(read_item(_text(item, where, reader)))
            except InvalidError as error:
                reader.mistake(item.line, " ".join(filter(None, (f"{where}: {error}", _advice(error)))))
        return tuple(found)

    return read


def _words(tree: Tree, where: str, reader: _Reader) -> tuple[str, ...]:
    """The words of a program call; a single text is a line for the shell."""
    if isinstance(tree.value, list):
        return tuple(_text(item, where, reader) for item in tree.value)
    raise InvalidError(f"must be a list of words, such as [serve, --verbose], not {tree.kind}")


def _shell_or_words(tree: Tree, where: str, reader: _Reader) -> tuple[str, ...]:
    return _words(tree, where, reader) if isinstance(tree.value, list) else ("sh", "-c", _text(tree, where, reader))


def _map(judge_key: Callable[[str], str]) -> Callable[[Tree, str, _Reader], dict[str, str]]:
    def read(tree: Tree, where: str, reader: _Reader) -> dict[str, str]:
        if not isinstance(tree.value, dict):
            raise InvalidError(f"must be a mapping, such as {{NAME: value}}, not {tree.kind}")
        found = {}
        for key, item in tree.value.items():
            line = tree.lines[key]
            if item.value is None:
                reader.mistake(line, f'{where}.{key} has no value; write "" for an empty one')
            elif problem := judge_key(key):
                reader.mistake(line, f"{where}: {problem}")
            else:
                try:
                    found[key] = _text(item, where, reader)
                except InvalidError as error:
                    reader.mistake(line, f"{where}.{key} {error}")
        return found

    return read


def _constraints(tree: Tree, where: str, reader: _Reader) -> dict[str, tuple[str, ...]]:
    if not isinstance(tree.value, dict):
        raise InvalidError(f"must be a mapping, such as {{zone: rack-1}}, not {tree.kind}")
    return {key: tuple(_text(v, where, reader) for v in _items(item)) for key, item in tree.value.items()}


def _resources(tree: Tree, where: str, reader: _Reader) -> dict[str, str]:
    return _Reader(tree, reader.source, where, reader.mistakes).read(_RESOURCE_KEYS)


def _health(tree: Tree, where: str, reader: _Reader) -> Health:
    given = _Reader(tree, reader.source, where, reader.mistakes).read(_HEALTH_KEYS)
    if isinstance(tree.value, dict) and sum(name in tree.value for name in ("http", "tcp", "exec")) != 1:
        raise InvalidError("exactly one of http, tcp and exec is needed")
    return Health(**given)


def _port_number(tree: Tree, where: str, reader: _Reader) -> int:
    number = _count(tree, where, reader)
    if not 1 <= number <= 65535:
        raise InvalidError(f"{number} is not a port (1-65535)")
    return number


def _named_variable(name: str) -> str:
    if problem := env_name_problem(name):
        raise InvalidError(problem)
    return name


def _anything(_: str) -> str:
    return ""


_RESOURCE_KEYS = {
    "cpu": _Key("cpu", _quantity(cpu_millis)),
    "memory": _Key("memory", _quantity(memory_bytes)),
    "cpu_limit": _Key("cpu_limit", _quantity(cpu_millis)),
    "memory_limit": _Key("memory_limit", _quantity(memory_bytes)),
}
_HEALTH_KEYS = {
    "http": _Key("http", _text),
    "tcp": _Key("tcp", _port_number),
    "exec": _Key("exec", _shell_or_words),
    "port": _Key("port", _port_number),
    "interval": _Key("interval_s", _duration),
    "timeout": _Key("timeout_s", _duration),
    "retries": _Key("retries", _count),
    "grace": _Key("grace_s", _duration),
    "restart": _Key("restart", _flag),
}
_KEYS = {
    "name": _Key("name", _judged(dns_label_problem)),
    "image": _Key("image", _judged(image_problem)),
    "namespace": _Key("namespace", _judged(dns_label_problem)),
    "replicas": _Key("replicas", _count),
    "ports": _Key("ports", _each(parse_port)),
    "entrypoint": _Key("entrypoint", _words),
    "command": _Key("command", _words),
    "env": _Key("env", _map(env_name_problem)),
    "secrets": _Key("secrets", _each(_named_variable)),
    "volumes": _Key("mounts", _each(parse_mount)),
    "resources": _Key("resources", _resources),
    "health": _Key("health", _health),
    "constraints": _Key("constraints", _constraints),
    "spread": _Key("spread", _each(str)),
    "stop_grace": _Key("stop_grace_s", _duration),
    "update": _Key("update", _choice("rolling", "recreate")),
    "pull": _Key("pull", _choice("always", "missing", "never")),
    "user": _Key("user", _text),
    "workdir": _Key("workdir", _text),
    "read_only": _Key("read_only", _flag),
    "labels": _Key("labels", _map(_anything)),
    "annotations": _Key("annotations", _map(_anything)),
}
