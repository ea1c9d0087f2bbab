# What the targets need: a virtual environment, and Debian packages named in one place: packages.txt

.PHONY: setup lab-packages bench-packages

setup: .venv/.done

.venv/.done: pyproject.toml
	@command -v python3 >/dev/null || { echo "korch needs python3 (3.11 or newer) with venv: apt-get install python3-venv"; exit 1; }
	python3 -m venv .venv || { echo "python3 has no venv: apt-get install python3-venv"; exit 1; }
	.venv/bin/pip install -q -e '.[dev]'
	@touch $@

lab-packages: setup
	@$(PY) -m korch.lab.packages lab

bench-packages: lab-packages
	@.venv/bin/pip install -q -e '.[bench]'
	@$(PY) -m korch.lab.packages bench
