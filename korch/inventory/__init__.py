"""Where the hosts come from: Ansible YAML, ansible-inventory, Vagrant, plain lists."""

from korch.inventory.hostnames import node_name
from korch.inventory.load import load_inventory
from korch.inventory.model import Host, Inventory

__all__ = ["Host", "Inventory", "load_inventory", "node_name"]
