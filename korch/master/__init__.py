"""Wiring: what runs in the process that leads, and the in-process client on it."""
