# `make demo` and `make test` need Python 3.11 to 3.13 and make; everything else is installed into .venv.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help install demo check docs fix test test-all bench-round bench-private bench-peers bench-load bench-demo screenshots clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed and {sys.executable} is {v[0]}.{v[1]}: call make with PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[coordinator,worker,agent,dev]'
	@touch $@

install: .venv/installed ## make .venv and install everything into it

demo: install ## co-tune an LLM and four SLMs over HTTPS on this machine
	$(BIN)/python -m examples.demo

check: install docs ## format, lint, types, import rules, and whether the guides can be built
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## build the guides into site/, to be read from the disk
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

fix: install ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install ## the tests that CI runs
	@# Side by side, each with one thread: torch's own threads would wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -m 'not slow' --cov --cov-report=
	$(BIN)/coverage report --include='shared/protocol/*' --fail-under=100

test-all: install ## the slow tests too
	$(BIN)/pytest

bench-round: install ## time and bytes of a round without training
	$(BIN)/python -m bench.round

bench-private: install ## figures of secure aggregation, beside Flower's
	$(BIN)/python -m bench.private

bench-peers: install ## rounds, memory and crashes beside Flower and NVIDIA FLARE (80 minutes)
	$(BIN)/python -m bench.peers

bench-load: install ## a thousand agents against one coordinator (an hour and more)
	$(BIN)/python -m bench.load --out runs/load

bench-demo: install ## the demo task over eight seeds, with its controls
	$(BIN)/python -m bench.paper bench/experiments/demo.toml --out runs/demo-report --jobs 2

screenshots: install ## take the pictures of all pages for the guides (needs chromium)
	$(BIN)/python -m tests.browser.screenshots

clean: ## remove what make made
	rm -rf .venv runs site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
