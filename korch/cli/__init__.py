"""The korch command: one file per noun; parse, call the client, render."""
