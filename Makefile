# Every target is one plain command; they work from a clean clone and in a path with a space.
# PYTHON chooses the interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help demo test check crash-matrix dashboard screenshots build up down clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/make \1	\2/p' Makefile

demo: $(VENV)/.installed ## run a sample workflow on one SQLite file, no server needed
	$(VENV)/bin/worchflow run process-payment '{"amount": 100, "customer_id": "cust_123"}'

test: $(VENV)/.installed-for-tests check ## check the code and run all tests
	$(RUN) -m pytest -n 3 --dist loadfile

check: $(VENV)/.installed-for-tests ## lint, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

crash-matrix: $(VENV)/.installed-for-tests ## let a process die in every gap between two writes, on each backend
	$(RUN) -m tests.faults.crash_matrix

dashboard: $(VENV)/.installed-for-dashboard ## serve the dashboard on http://127.0.0.1:8765
	$(VENV)/bin/worchflow dashboard

screenshots: $(VENV)/.installed-for-tests ## pictures of the dashboard into docs/images (needs chromium)
	$(RUN) -m tests.plugins.dashboard.screenshots

build: $(VENV)/.installed-for-tests ## wheels and source distributions of both packages, in dist/
	$(RUN) -m build --outdir dist .
	$(RUN) -m build --outdir dist sample_plugin

up: ## start Redis and MongoDB in containers and wait until they answer
	docker compose up -d --wait

down: ## stop them
	docker compose down

clean: ## remove what the other targets made
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Worchflow needs Python 3.11 or newer, and $(PYTHON) is older: set PYTHON=python3.12 or the like" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml sample_plugin/pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e . -e ./sample_plugin
	@touch $@

$(VENV)/.installed-for-dashboard: $(VENV)/bin/python pyproject.toml sample_plugin/pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dashboard]' -e ./sample_plugin
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-for-tests: $(VENV)/bin/python pyproject.toml sample_plugin/pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[test]' -e ./sample_plugin
	@touch $@ $(VENV)/.installed
