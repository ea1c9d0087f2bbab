"""Groups and hosts as the sources give them, before anything is decided; and Ansible's order of variables.

Every source (YAML, ansible-inventory, Vagrant, plain list) fills one tree, so that `-i vagrant -i labels.yml` can add
variables and groups to Vagrant's machines.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from korch.errors import InvalidError
from korch.inventory.marked import Marked, Place, fault

PRIORITY = "ansible_group_priority"


@dataclass(slots=True)
class Group:
    """`mentioned` is where some `children:` names it; `defined` where it has a body of its own."""

    name: str
    defined: Place | None = None
    mentioned: Place | None = None
    hosts: dict[str, Place] = field(default_factory=dict)
    children: dict[str, Place] = field(default_factory=dict)
    vars: dict[str, Marked] = field(default_factory=dict)
    priority: int = 1


@dataclass(slots=True)
class Entry:
    """A host: where it was first written, in which file's folder, and its own variables."""

    name: str
    place: Place
    vars: dict[str, Marked] = field(default_factory=dict)
    source: Path | None = None


class VarFiles(Protocol):
    """The `group_vars/` and `host_vars/` beside one source."""

    def group(self, name: str) -> Mapping[str, Marked]:
        """Variables of the files for that group."""
        ...

    def host(self, name: str) -> Mapping[str, Marked]:
        """Variables of the files for that host."""
        ...


class Tree:
    """Grows while sources are read; `finish` checks it; then it only answers."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {"all": Group("all", Place("")), "ungrouped": Group("ungrouped", Place(""))}
        self.hosts: dict[str, Entry] = {}
        self._depth: dict[str, int] = {}
        self._parents: dict[str, list[str]] = {}

    def define_group(self, name: str, place: Place) -> Group:
        """The group, noted as having a body of its own."""
        group = self.groups.setdefault(name, Group(name))
        group.defined = group.defined or place
        return group

    def add_child(self, parent: str, child: str, place: Place) -> None:
        """Put one group below another; the child may be defined later or never."""
        if parent == child:
            raise fault(place, f'group "{child}" is a child of itself')
        self.groups.setdefault(child, Group(child)).mentioned = place
        self.groups[parent].children.setdefault(child, place)

    def add_host(self, name: str, group: str, place: Place, source: Path | None = None) -> Entry:
        """The host, new or known, now also in `group`."""
        self.groups[group].hosts.setdefault(name, place)
        return self.hosts.setdefault(name, Entry(name, place, source=source))

    def set_group_var(self, group: str, key: str, value: Marked) -> None:
        """Later sources win. The group's priority is no variable of its hosts."""
        if key != PRIORITY:
            self.groups[group].vars[key] = value
            return
        try:
            self.groups[group].priority = int(str(value.value))
        except ValueError:
            raise fault(value.place, f'{PRIORITY} of group "{group}" is not a whole number') from None

    def set_host_var(self, host: str, key: str, value: Marked) -> None:
        """Later sources win, but one name with two addresses is most likely two machines: refused."""
        known = self.hosts[host].vars.get(key)
        if known is not None and key in {"ansible_host", "ansible_ssh_host"} and known.value != value.value:
            raise fault(
                value.place,
                f'host "{host}" has {key} {value.value} here and {known.value} at {known.place}',
                hint="Give the second machine another name, or remove one of the addresses.",
            )
        self.hosts[host].vars[key] = value

    def finish(self) -> None:
        """Check names and cycles, put lone hosts into "ungrouped" and lone groups below "all", count depths."""
        self._refuse_unknown_children()
        self._refuse_cycles()
        children = {child for group in self.groups.values() if group.name != "all" for child in group.children}
        for name in list(self.groups):
            if name != "all" and name not in children:
                self.groups["all"].children.setdefault(name, Place(""))
        self._parents = {name: [g.name for g in self.groups.values() if name in g.children] for name in self.groups}
        grouped = {h for g in self.groups.values() if g.name not in {"all", "ungrouped"} for h in g.hosts}
        for name, entry in self.hosts.items():
            if name in grouped:
                self.groups["ungrouped"].hosts.pop(name, None)
            else:
                self.groups["ungrouped"].hosts.setdefault(name, entry.place)
        self._depth = {}
        for name in self.groups:
            self._count_depth(name)

    def _refuse_unknown_children(self) -> None:
        for group in self.groups.values():
            if group.defined is None and group.mentioned is not None:
                known = [other.name for other in self.groups.values() if other.defined is not None]
                raise fault(
                    group.mentioned,
                    f'children: group "{group.name}" is not defined anywhere{did_you_mean(group.name, known)}',
                    hint=f"Define it, or write `{group.name}: {{hosts: {{}}}}` when it is meant to be empty.",
                )

    def _refuse_cycles(self) -> None:
        """Depth first with an explicit trail, so that the message can show the whole circle."""
        done: set[str] = set()
        for start in self.groups:
            trail: list[str] = [start]
            pending = [iter(self.groups[start].children)]
            while pending:
                child = next(pending[-1], None)
                if child is None:
                    pending.pop()
                    done.add(trail.pop())
                elif child in trail:
                    circle = [*trail[trail.index(child) :], child]
                    place = self.groups[trail[-1]].children[child]
                    raise fault(
                        place, f"groups form a cycle: {' > '.join(circle)}", hint="Remove one of these children."
                    )
                elif child not in done:
                    trail.append(child)
                    pending.append(iter(self.groups[child].children))

    def _count_depth(self, name: str) -> int:
        """Length of the longest way from "all"."""
        if name not in self._depth:
            self._depth[name] = max((self._count_depth(parent) + 1 for parent in self._parents[name]), default=0)
        return self._depth[name]

    def groups_of(self, host: str) -> list[str]:
        """All groups of a host, parents too, without "all", in the order in which their variables apply."""
        found = {name for name, group in self.groups.items() if host in group.hosts}
        pending = list(found)
        while pending:
            for parent in self._parents[pending.pop()]:
                if parent not in found:
                    found.add(parent)
                    pending.append(parent)
        found.discard("all")
        return sorted(found, key=lambda name: (self._depth[name], self.groups[name].priority, name))

    def hosts_of(self, group: str) -> list[str]:
        """Hosts of a group and all below it; nearer ones first."""
        if group == "all":
            return list(self.hosts)
        hosts: dict[str, None] = {}
        seen, level = {group}, [group]
        while level:
            for name in level:
                hosts.update(dict.fromkeys(self.groups[name].hosts))
            level = list(dict.fromkeys(c for name in level for c in self.groups[name].children if c not in seen))
            seen.update(level)
        return list(hosts)

    def vars_of(self, host: str, files: Sequence[VarFiles]) -> dict[str, Marked]:
        """All variables of a host in Ansible's default VARIABLE_PRECEDENCE.

        Weakest first: all, groups (parents before children), group_vars/all, group_vars of groups, host, host_vars.
        A `group_vars/all` file therefore beats variables written inside a group in the inventory itself.
        """
        groups = self.groups_of(host)
        layers: list[Mapping[str, Marked]] = [self.groups["all"].vars, *(self.groups[name].vars for name in groups)]
        layers += [source.group("all") for source in files]
        layers += [source.group(name) for source in files for name in groups]
        layers.append(self.hosts[host].vars)
        layers += [source.host(host) for source in files]
        merged: dict[str, Marked] = {}
        for layer in layers:
            merged.update(layer)
        return merged


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "web"?` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def as_text(key: object, place: Place, what: str) -> str:
    """A YAML key that must be text: 10, yes and null are not."""
    if isinstance(key, str) and key:
        return key
    raise fault(place, f"{what} {key!r} is not text", hint="Put it into quotes.")


def relocated(error: InvalidError, place: Place) -> InvalidError:
    """The same error, said with file and line."""
    return fault(place, str(error), hint=error.hint)
