# Every target sets up .venv first, so each works as the first command on a bare clone
# with Python 3.11 or newer and make.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-done
# Arguments for pytest, e.g. `make test TESTS="tests/layers -k mask"`.
TESTS ?=
# Processes that run the tests: as many as there are cores, but no more than memory allows.
JOBS ?= auto --maxprocesses 8
# A caption for the demo, e.g. `make demo PROMPT="a red circle moves left"`. It goes through the
# environment, where quotes in it mean nothing to the shell.
PROMPT ?=
export PROMPT
# Compiled modules are kept, whatever the shell says: tests start many processes.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help setup check format test smoke certificates bench demo clean

help:  ## say what there is
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

setup: $(STAMP)  ## make .venv with the tested versions of everything

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit(f"got Python {v[0]}.{v[1]}, expected 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode -c constraints.txt -e '.[dev]'
	@touch $@

check: setup  ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup  ## the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

smoke: setup  ## every recipe one shrunken step, every experiment on its smallest setting
	$(BIN)/python -m pytest tests/test_configs.py
	@for file in $(wildcard experiments/*/experiment.yaml); do $(BIN)/vdm compare $$(dirname $$file) --smoke || exit 1; done

certificates: setup  ## measure how close imported systems are to their references
	$(BIN)/python tests/certify.py

bench: setup  ## the benchmarks
	$(BIN)/python tests/benchmark.py
	$(BIN)/python tests/benchmark_loader.py

demo: setup  ## words to video, image to video, training and scores: outputs/demo/report.html
	$(BIN)/vdm demo $(if $(PROMPT),--prompt "$$PROMPT")

clean:  ## remove what runs wrote; .venv stays
	rm -rf outputs build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
