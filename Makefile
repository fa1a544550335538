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

NORMAL := -m "not slow and not docs and not engines"
ROOMS := $(addprefix tests/,operators terms solvers integrators networks analysis tasks data)
SOLVES := $(addprefix tests/operators/,test_implicit_conv.py test_boundaries.py \
	test_stencils.py test_fused.py::test_kernels_for_cpus_agree_with_torch)

.PHONY: test
test: test-vectors ## Run the tests (a few minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(NORMAL)

# Threads that wait for each other asleep: where cores are shared they spin for minutes.
.PHONY: test-vectors
test-vectors: $(DEV) # One line of the matrix every time: no vectors, two threads
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive \
		$(BIN)/python -m pytest -q --seed 1 $(SOLVES) tests/solvers

# Each line has other random data and another order.
.PHONY: test-matrix
test-matrix: $(DEV) ## Test with other vectors and threads, without g++, without Triton
	set -e; seed=10; for vectors in default avx2 avx512; do for threads in 1 2 4; do \
		seed=$$((seed + 1)); echo "$$vectors, $$threads threads, seed $$seed"; \
		ATEN_CPU_CAPABILITY=$$vectors OMP_NUM_THREADS=$$threads OMP_WAIT_POLICY=passive \
			$(BIN)/python -m pytest -q $(NORMAL) --seed $$seed $(ROOMS); \
	done; done
	CXX=/no/g++ IMEX_CACHE=$$(mktemp -d) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n 2 --dist worksteal $(NORMAL) --seed 20
	PYTHONPATH=tests/without_triton OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n 2 --dist worksteal $(NORMAL) --seed 21

.PHONY: test-slow
test-slow: $(DEV) ## Run the tests that train to the end
	$(BIN)/python -m pytest -m slow

.PHONY: test-cluster
test-cluster: $(DEV) ## Run the jobs of a sweep on a real Ray (two minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_sweeps.py -k "ray_gives and 3"

.PHONY: test-engines
test-engines: $(DEV) ## Run sweeps on a SLURM of the tests' own (root and its packages; minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/engines

.PHONY: test-faults
test-faults: $(DEV) ## Kill, fill, fuzz and forge, and take out every guard (two hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_faults.py tests/test_resume.py \
		tests/test_malicious.py tests/test_guards.py tests/runs/test_checkpoint_io.py
	OMP_NUM_THREADS=1 $(BIN)/python scripts/maintenance/torture.py
	OMP_NUM_THREADS=1 $(BIN)/python scripts/maintenance/torture.py --at every-operation
	OMP_NUM_THREADS=1 $(BIN)/python scripts/maintenance/torture.py --at every-operation --sweep \
		--sample 100

.PHONY: docs-check
docs-check: $(DEV) ## Run every command and snippet of README.md and docs/
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m docs

.PHONY: wheel
wheel: $(READY) ## Build dist/*.whl: the package with conf/ and the command imex
	rm -rf build  # setuptools would take files from it that are gone here
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

.PHONY: lint
lint: $(DEV) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: benchmark
benchmark: $(READY) ## Measure what the implicit step costs (minutes): outputs/benchmark.json
	$(BIN)/python scripts/benchmarks/solve.py out=outputs/benchmark.json

.PHONY: gpu-check
gpu-check: $(READY) ## Check and measure all that needs a CUDA device (9 minutes): outputs/gpu
	$(BIN)/python scripts/maintenance/gpu_check.py out=outputs/gpu

.PHONY: gpu-rehearsal
gpu-rehearsal: $(DEV) ## The same in miniature on a CPU: outputs/gpu_rehearsal
	$(BIN)/python scripts/maintenance/gpu_check.py out=outputs/gpu_rehearsal device=cpu minutes=30

.PHONY: dashboard
dashboard: $(READY) ## TensorBoard on localhost:6006 (one sweep: make dashboard LOGDIR=<sweep>)
	$(BIN)/tensorboard --logdir "$(LOGDIR)" --host localhost

.PHONY: clean
clean: ## Remove the environment and all caches; runs in outputs/ stay
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
