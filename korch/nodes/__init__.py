"""The keeper: one per node, lives in the master, drives the node over SSH."""
