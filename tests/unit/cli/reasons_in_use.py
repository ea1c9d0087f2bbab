"""Finds every reason that korch writes into a status or an event, by following the code backwards from where they end.

What cannot be followed is not passed over: it is in `unknown`, and the test that uses this fails for it.
"""

import ast
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

FIELDS = frozenset({"reason", "pod_reason"})  # parameters, fields and variables that hold a reason bear this name
WRITERS = frozenset(
    {"Condition", "ContainerStateWaiting", "ContainerStateTerminated", "PodStatus", "Event", "record_event"}
)
Place = tuple[str, str]  # (file below korch/, the expression as it stands there)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Module:
    """One file. `above` leads from each node to what it stands in, `inside` from each function to its nodes."""

    path: str
    tree: ast.Module
    above: dict[ast.AST, ast.AST] = field(default_factory=dict)
    inside: dict[Function | None, list[ast.AST]] = field(default_factory=lambda: defaultdict(list))
    calls: list[ast.Call] = field(default_factory=list)
    constants: dict[str, ast.expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            self.above.update(dict.fromkeys(ast.iter_child_nodes(node), node))
        for node in self.above:
            self.inside[self.function_of(node)].append(node)
            if isinstance(node, ast.Call):
                self.calls.append(node)
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = node.value

    def function_of(self, node: ast.AST) -> Function | None:
        """The function around a node."""
        while not isinstance(node, ast.Module):
            node = self.above[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return node
        return None


@dataclass(frozen=True, slots=True)
class Callee:
    """Something that can be called, with the names of what it takes."""

    module: str
    takes: tuple[str, ...]


class ReasonsInUse:
    """`words`: reason → files in which it stands. `unknown`: expressions that could not be followed.

    `known`: what single expressions stand for, as a person (and mypy, through Literal types) vouches for it.
    """

    def __init__(self, root: Path, packages: Sequence[str], known: dict[Place, frozenset[str]]) -> None:
        self.words: dict[str, set[str]] = defaultdict(set)
        self.unknown: set[Place] = set()
        self.used: set[Place] = set()
        self._known = known
        self._modules = [
            Module(str(file.relative_to(root)), ast.parse(file.read_text()))
            for package in packages
            for file in sorted((root / package).rglob("*.py"))
        ]
        self._callees = _callees(self._modules)
        for module in self._modules:
            for node in module.above:
                for value in self._sinks(module, node):
                    self._take(module, value)

    def _take(self, module: Module, value: ast.expr) -> None:
        for word in self._values(module, value, ()):
            if word:
                self.words[word].add(module.path)

    # Where reasons end

    def _sinks(self, module: Module, node: ast.AST) -> Iterator[ast.expr]:
        match node:
            case ast.Call(args=args, keywords=keywords):
                yield from (word.value for word in keywords if word.arg in FIELDS)
                yield from _after_type(args)
                for name in FIELDS:
                    yield from self._arguments(module, node, name)
            case ast.Tuple(elts=elements, ctx=ast.Load()):
                yield from _after_type(elements)
            case ast.Dict(keys=keys, values=values):
                yield from (
                    value
                    for key, value in zip(keys, values, strict=True)
                    if isinstance(key, ast.Constant) and key.value in FIELDS
                )
            case ast.Assign() if isinstance(module.above[node], ast.ClassDef):
                return  # what an error is called: where one is put on record, that is looked at
            case ast.arguments(posonlyargs=first, args=args, defaults=defaults, kwonlyargs=named, kw_defaults=others):
                last = [*first, *args][-len(defaults) :] if defaults else []
                pairs = (*zip(last, defaults, strict=True), *zip(named, others, strict=True))
                yield from (value for one, value in pairs if one.arg in FIELDS and value is not None)
            case ast.Assign() | ast.AnnAssign() | ast.NamedExpr() | ast.For() | ast.comprehension():
                for name in FIELDS:
                    yield from self._becomes(module, node, name)

    def _becomes(self, module: Module, node: ast.AST, name: str) -> Iterator[ast.expr]:
        """What a variable becomes by a statement; in a loop over a constant, what it is in each turn."""
        match node:
            case ast.Assign(targets=[target], value=value):
                yield from _parts(target, value, name)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                yield from _parts(target, value, name)
            case ast.For(target=target, iter=source) | ast.comprehension(target=target, iter=source):
                if isinstance(source, ast.Name):
                    source = module.constants.get(source.id, source)
                turns = source.elts if isinstance(source, ast.Tuple) else [source]
                for turn in turns:
                    yield from _parts(target, turn, name)

    def _arguments(self, module: Module, call: ast.Call, name: str) -> Iterator[ast.expr]:
        """What a call gives for the parameter `name`, by its place."""
        called = _name_of(call.func)
        found = self._callees.get(called, [])
        near = [callee for callee in found if callee.module == module.path] or found
        for place in {callee.takes.index(name) for callee in near if name in callee.takes}:
            given = call.args[: place + 1]
            yield from [one for one in given if isinstance(one, ast.Starred)] or given[place:]

    # Where they come from

    def _values(self, module: Module, value: ast.expr, seen: tuple[ast.AST, ...]) -> set[str]:
        place = (module.path, ast.unparse(value))
        if place in self._known:
            self.used.add(place)
            return set(self._known[place])
        follow = partial(self._values, module, seen=(*seen, value))
        match value:
            case _ if value in seen:
                return set()
            case ast.Constant(value=text):
                return {text} if isinstance(text, str) else set()
            case ast.IfExp(body=body, orelse=orelse):
                return follow(body) | follow(orelse)
            case ast.BoolOp(values=values):
                return set().union(*map(follow, values))
            case ast.JoinedStr(values=values):
                return {"".join(parts) for parts in itertools.product(*map(follow, values))}
            case ast.FormattedValue(value=inner):
                return follow(inner)
            case ast.Name(id=name):
                return self._variable(module, value, name, seen)
        self.unknown.add(place)
        return set()

    def _variable(self, module: Module, at: ast.Name, name: str, seen: tuple[ast.AST, ...]) -> set[str]:
        function = module.function_of(at)
        if function is not None and name in _parameters(function):
            if name in FIELDS:
                return set()  # whoever calls it is looked at for itself
            return self._given(function.name, name, seen)
        if name in FIELDS:
            return set()  # each assignment to such a variable is looked at for itself
        for home, scope in ((module, function), (module, None), *((one, None) for one in self._modules)):
            values = [part for node in home.inside.get(scope, ()) for part in self._becomes(home, node, name)]
            if values:
                return set().union(*(self._values(home, one, (*seen, at)) for one in values))
        self.unknown.add((module.path, name))
        return set()

    def _given(self, function: str, name: str, seen: tuple[ast.AST, ...]) -> set[str]:
        """What callers give for a parameter."""
        found: set[str] = set()
        for module in self._modules:
            for call in module.calls:
                if _name_of(call.func) == function:
                    given = [word.value for word in call.keywords if word.arg == name]
                    for one in (*given, *self._arguments(module, call, name)):
                        found |= self._values(module, one, seen)
        return found


def writers_in(root: Path, packages: Sequence[str]) -> set[Place]:
    """(file, name) of what puts a reason on record, in packages that are not looked through."""
    found: set[Place] = set()
    for file in (one for package in packages for one in sorted((root / package).rglob("*.py"))):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        called = {_name_of(node.func) for node in nodes if isinstance(node, ast.Call)} & WRITERS
        ours = [
            one for one in nodes if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("korch.resources")
        ]
        names = {alias.name for one in ours for alias in one.names} | {"record_event"}
        found |= {(str(file.relative_to(root)), name) for name in called & names}
    return found


def _after_type(elements: Sequence[ast.expr]) -> Iterator[ast.expr]:
    """In ("Warning", X, ...) the second is a reason."""
    for first, second in itertools.pairwise(elements):
        if _is_type(first) and not _is_type(second):
            yield second


def _is_type(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in ("Normal", "Warning")


def _parts(target: ast.expr, value: ast.expr, name: str) -> list[ast.expr]:
    """What `name` becomes by an assignment; of a tuple that is made elsewhere, the whole of that."""
    if isinstance(target, ast.Name):
        return [value] if target.id == name else []
    if not isinstance(target, ast.Tuple):
        return []
    names = [one.id if isinstance(one, ast.Name) else "" for one in target.elts]
    if name not in names:
        return []
    if isinstance(value, ast.Tuple) and len(value.elts) == len(names):
        return [value.elts[names.index(name)]]
    if isinstance(value, ast.IfExp):
        return [*_parts(target, value.body, name), *_parts(target, value.orelse, name)]
    return [value]


def _callees(modules: Sequence[Module]) -> dict[str, list[Callee]]:
    found: dict[str, list[Callee]] = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
                fields = [
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
                takes = _parameters(made[0])[1:] if made else tuple(fields)
                found[node.name].append(Callee(module.path, takes))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                takes = _parameters(node)
                found[node.name].append(Callee(module.path, takes[1:] if takes[:1] == ("self",) else takes))
    return found


def _parameters(function: Function) -> tuple[str, ...]:
    arguments = function.args
    return tuple(one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def _name_of(called: ast.expr) -> str:
    match called:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
