"""Where the hosts come from: Ansible YAML, ansible-inventory, Vagrant, plain lists."""
