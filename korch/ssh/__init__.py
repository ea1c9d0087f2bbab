"""Connections to hosts: Fabric and paramiko, host keys, OpenSSH's own configuration, a governor."""
