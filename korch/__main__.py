"""`python -m korch`."""

from korch.cli.main import main

main()
