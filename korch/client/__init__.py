"""One door for the command line, tests and scripts."""
