# make lab     create .venv, install, open JupyterLab     (make lab ARGS=--no-browser)
# make test    create .venv, install, run the tests       (make test ARGS="-k images")
# make notebooks   build and run all notebooks            (make notebooks ARGS=00_start_here)
# make audit   licences, unused dependencies, known vulnerabilities of the pins (needs a network)
# make tour    take the screenshots of docs/tour.md anew (needs chromium)
#
# PYTHON=python3.12     another interpreter for .venv (>= 3.10)
# PIP_ARGS="..."        passed to pip, e.g. the index of CPU-only builds of torch

PYTHON ?= python3
ARGS ?=
PIP_ARGS ?=
BIN := .venv/bin

.PHONY: lab test notebooks audit tour clean
.DELETE_ON_ERROR:

lab: .venv/.lab
	$(BIN)/fpkit lab $(ARGS)

test: .venv/.test
	$(BIN)/python -m pytest $(ARGS)

notebooks: .venv/.test
	$(BIN)/python notebooks/build.py $(ARGS)

audit: .venv/.audit
	$(BIN)/python benchmarks/dependencies.py $(ARGS)

tour: .venv/.test
	FPKIT_TOUR=docs/tour $(BIN)/python -m pytest -m browser tests/test_browser.py $(ARGS)

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache
	find fpkit tests notebooks -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 10) or \
	  sys.exit(f"fpkit needs Python 3.10 or newer, {sys.executable} is {v}: try make PYTHON=...")'
	$(PYTHON) -m venv .venv

# The stamps hold what was installed: a second make installs nothing unless these files changed.
.venv/.lab: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[lab]'
	@touch $@

.venv/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[lab,test]'
	@touch .venv/.lab $@

.venv/.audit: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[lab,test,audit]'
	@touch .venv/.lab .venv/.test $@
