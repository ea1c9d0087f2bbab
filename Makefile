# make demo | test | check | bench | chaos | clean     (see README.md)
SHELL := /bin/bash
PY := .venv/bin/python

include setup.mk

.PHONY: demo test check lint unit bench chaos fuzz vagrant-test vm-test clean

demo: setup lab-packages
	$(PY) -m korch.lab.demo

check: lint unit

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

unit: setup
	$(PY) -m pytest tests/unit tests/contract -m 'not lab'

# Without root, Linux or an engine the lab's tests are skipped, each with the reason; in CI that is a failure.
test: setup
	@$(PY) -m korch.lab.packages lab test || [ "$$CI" != true ]
	@$(PY) -m tests.kubetools || [ "$$CI" != true ]
	@$(PY) -m compileall -q korch tests  # where PYTHONDONTWRITEBYTECODE is set, each of thousands of korchs would compile itself
	$(PY) -m pytest -n 3 --dist loadfile $(if $(CI),--reruns 2 --reruns-delay 2) $(ARGS)

bench: setup bench-packages
	$(PY) -m benchmarks

chaos: setup lab-packages fuzz
	$(PY) -m tests.chaos

# Over ten thousand requests that nobody should send; `make unit` makes some of them.
fuzz: setup
	KORCH_FUZZ=10 $(PY) -m pytest tests/contract/test_served_openapi.py tests/unit/api/test_fuzzed.py tests/unit/api/test_fuzzed_bodies.py

# Virtual machines without hardware support: slow, so not a part of `make test`. KORCH_VM_DIR keeps their disk.
vm-test: setup
	@$(PY) -m korch.lab.packages vm
	$(PY) -m tests.vm

vagrant-test: setup
	@$(PY) -m korch.lab.packages vm vagrant
	$(PY) -m tests.vm.vagrant

clean:
	rm -rf .venv build korch.egg-info
