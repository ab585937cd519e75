# Everything runs from a fresh clone: each target sets up .venv first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export PYTHONPATH := $(CURDIR)
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help setup demo results test test-all lint format clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Create .venv and install requirements.txt at the locked versions

$(STAMP): requirements.txt constraints.txt
	@command -v uv >/dev/null || $(PYTHON) -m uv --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet --user uv || $(PYTHON) -m pip install --quiet --break-system-packages uv
	@UV=$$(command -v uv || echo "$(PYTHON) -m uv"); \
	  test -x $(PY) || $$UV venv --quiet --python $(PYTHON) $(VENV); \
	  echo "Installing requirements.txt into $(VENV) ..."; \
	  $$UV pip install --quiet --python $(PY) -r requirements.txt -c constraints.txt && \
	  $$UV pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## Train on DSR-Emoji and print the Recall@K table (under 6 minutes)
	$(PY) -m freestyle.cli demo --out runs/demo

results: $(STAMP)  ## Every control over its seeds: the README's table; finished cells are kept
	$(PY) -m freestyle.cli bench configs/bench/methods.yaml --out runs/bench

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(STAMP)  ## Apply ruff's fixes and formatting
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

test: lint  ## Lint, format check and the fast tests (under 6 minutes)
	$(PY) -m pytest -m "not slow"

test-all: lint  ## The fast tests and those marked slow
	$(PY) -m pytest

clean:  ## Remove what runs and tests wrote (keeps .venv)
	rm -rf runs lightning_logs .pytest_cache .ruff_cache .hypothesis
