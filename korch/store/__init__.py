"""Versioned keys with compare-and-set, watches and leases."""
