"""Ansible inventory and known_hosts of a lab, as text. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from korch.lab.spec import NodeSpec


def inventory_text(
    specs: Sequence[NodeSpec], addresses: Mapping[str, str], *, key: Path, known_hosts: Path, user: str = "root"
) -> str:
    """An Ansible inventory: a group for each engine, hosts by address. Another user than root becomes root by sudo."""
    groups: dict[str, Any] = {}
    for spec in specs:
        if user != "root" and spec.busybox:
            continue  # no sudo there
        group = "no_engine" if spec.engine == "none" else spec.engine
        groups.setdefault(group, {"hosts": {}})["hosts"][spec.name] = {"ansible_host": addresses[spec.name]}
    variables: dict[str, Any] = {
        "ansible_user": user,
        "ansible_ssh_private_key_file": str(key),
        # No ssh agent's keys: they would be tried first, and sshd counts them.
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes",
    }
    if user != "root":
        variables["ansible_become"] = True
    everything: dict[str, Any] = {"vars": variables}
    if groups:
        everything["children"] = groups
    return "# Written by `korch lab up`.\n" + yaml.safe_dump({"all": everything}, sort_keys=False)


def known_hosts_text(keys: Mapping[str, Sequence[str]]) -> str:
    """known_hosts lines from `TYPE BASE64` keys by address."""
    return "".join(f"{address} {key}\n" for address, found in keys.items() for key in found)
