# make demo | test | check | bench | chaos | lab | clean     (see README.md)
SHELL := /bin/bash
PY := .venv/bin/python

include setup.mk

.PHONY: demo test check unit bench chaos vagrant-test vm-test clean

demo: setup lab-packages
	$(PY) -m korch.lab.demo

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(PY) -m pytest tests/unit tests/contract

unit: setup
	$(PY) -m pytest tests/unit tests/contract

test: setup lab-packages
	$(PY) -m pytest

bench: setup bench-packages
	$(PY) -m benchmarks

chaos: setup lab-packages
	$(PY) -m tests.chaos

clean:
	rm -rf .venv build korch.egg-info
