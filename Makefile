# `make train` and `make test` need nothing but Python >= 3.11: they make .venv themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
# Words for train.py: make train ARGS="model=resnet seed=1"
ARGS ?=
# What `make dashboard` shows
LOGDIR ?= outputs

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(DEV): $(READY)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

.PHONY: setup
setup: $(DEV) ## Make the environment in .venv, with launchers and test tools

.PHONY: train
train: $(READY) ## Train IMEXnet on Q-tips (other runs: make train ARGS="model=resnet")
	$(BIN)/python train.py $(ARGS)

.PHONY: test
test: $(DEV) ## Run the tests (a few minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not docs"

.PHONY: test-slow
test-slow: $(DEV) ## Run the tests that train to the end
	$(BIN)/python -m pytest -m slow

.PHONY: test-faults
test-faults: $(DEV) ## Kill, fill, fuzz and forge, and take out every guard (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_faults.py tests/test_resume.py \
		tests/test_malicious.py tests/test_guards.py tests/runs/test_checkpoint_io.py
	OMP_NUM_THREADS=1 $(BIN)/python scripts/torture.py
	OMP_NUM_THREADS=1 $(BIN)/python scripts/torture.py --at every-operation

.PHONY: docs-check
docs-check: $(DEV) ## Run every command and snippet of README.md and docs/
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m docs

.PHONY: lint
lint: $(DEV) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: benchmark
benchmark: $(READY) ## Measure what the implicit step costs (minutes): outputs/benchmark.json
	$(BIN)/python scripts/benchmark.py out=outputs/benchmark.json

.PHONY: gpu-check
gpu-check: $(READY) ## Check and measure all that needs a CUDA device (9 minutes): outputs/gpu
	$(BIN)/python scripts/maintenance/gpu_check.py out=outputs/gpu

.PHONY: dashboard
dashboard: $(READY) ## TensorBoard on localhost:6006 (one sweep: make dashboard LOGDIR=<sweep>)
	$(BIN)/tensorboard --logdir "$(LOGDIR)" --host localhost

.PHONY: clean
clean: ## Remove the environment and all caches; runs in outputs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
