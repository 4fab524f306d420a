# `make env` is all that the other targets need. Stamps keep a second run instant.
PYTHON ?= python3
BIN := .venv/bin
# Three tests at once on two cores, because those of stacks wait as often as they compute. Whoever
# has a stack runs all tests that want it (tests/conftest.py), and these come first, so that all
# end together.
TESTS := $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder --durations=10 --durations-min=1 --junitxml=build/tests.xml
# What these test at each call, in each year or for each case, `make test` tests for a part of them.
SAMPLED := tests/infra/storage/test_copying.py tests/tasks/batch_inference/test_publication.py \
  tests/tasks/batch_inference/test_csv_columns.py tests/tasks/batch_inference/test_part_reading.py \
  tests/tasks/batch_inference/test_splitting.py tests/tuning/katib/test_refusals.py \
  tests/tuning/plots/test_plots.py tests/schedules/test_cron.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A part of the stack imports half a minute's worth of source, or three seconds' worth of bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env torch demo test check lint all-tests unit-tests soak mutants frameworks benchmark reference images lock clean

env: .venv/.runtime
	@echo 'Ready. Next: export PATH="$(CURDIR)/$(BIN):$$PATH", then modelyard up --detach, or make demo.'
torch: .venv/.torch
demo: .venv/.runtime
	@$(BIN)/modelyard demo
# mypy beside the tests: it keeps one core busy for a minute where it has no cache.
test: .venv/.dev .venv/.torch
	@$(MAKE) --no-print-directory -j 2 lint all-tests
check: .venv/.dev
	@$(MAKE) --no-print-directory -j 2 lint unit-tests
all-tests:
	@$(TESTS)
unit-tests:
	@$(TESTS) -m "not e2e and not integration"
lint: .venv/.dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
soak: .venv/.dev .venv/.torch
	@$(BIN)/python -m tests.e2e.soak
	@$(BIN)/python -m tests.e2e.tuning_soak
	@$(BIN)/python -m tests.e2e.tuning_soak --dispatch pool --tunings 6
	@$(BIN)/python -m tests.e2e.schedule_soak
	@$(BIN)/python -m tests.e2e.pipeline_soak
	@$(BIN)/python -m tests.e2e.batch_inference_soak
	@$(BIN)/python -m tests.e2e.evaluation_soak
	@$(BIN)/python -m tests.e2e.batch_inference_memory --gib 2
	@$(BIN)/python -m tests.e2e.evaluation_memory --gib 2
	@$(BIN)/python -m tests.e2e.load_soak
	@$(BIN)/python -m tests.e2e.kubernetes_soak
	@MODELYARD_SOAK=1 $(TESTS) -m soak --ignore tests/e2e/test_docs.py
	@MODELYARD_SOAK=1 $(TESTS) tests/e2e/test_docs.py
	@MODELYARD_SOAK=1 $(TESTS) $(SAMPLED)
	@MODELYARD_SOAK=1 MODELYARD_SEEDS=30 $(TESTS) tests/schedules/test_kills.py tests/pipelines/test_execution_random.py
# Which tests run which line, and 60 mutants of such lines, each with the tests that run it. One file's
# tests become another user, who may not write what is measured.
mutants: .venv/.dev .venv/.torch
	@mkdir -p build/coverage && rm -f build/coverage/.data*
	@COVERAGE_FILE=$(CURDIR)/build/coverage/.data $(BIN)/coverage run -m pytest $(subst $(BIN)/pytest,,$(TESTS)) \
	  --deselect tests/infra/storage/test_file.py
	@cd build/coverage && COVERAGE_FILE=$(CURDIR)/build/coverage/.data $(CURDIR)/$(BIN)/coverage combine --quiet .
	@$(BIN)/python -m tests.mutants --data build/coverage/.data --number 60
# What the tests of models skip for want of CatBoost and TensorFlow, in an environment of its own.
frameworks: build/frameworks/.installed
	@build/frameworks/bin/pytest -q tests/serving/runtime tests/registry/flavors tests/registry/test_frameworks.py
# The pages of docs/reference, from the code; a test compares them.
reference: .venv/.dev
	@$(BIN)/python -m tests.reference
benchmark: .venv/.dev
	@$(BIN)/python -m benchmarks

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	  f"Modelyard needs Python 3.11 or newer, and {sys.executable} is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11 env")'
	@echo "Making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt

# uv installs in seconds; where it cannot reach what pip is configured for, pip does the same slowly.
.venv/.runtime: requirements/runtime.txt pyproject.toml | .venv/bin/uv
	@echo "Installing Modelyard and what it needs into .venv: about a minute"
	@$(BIN)/uv pip install --quiet --compile-bytecode --system-certs --python $(BIN)/python --require-hashes -r requirements/runtime.txt \
	  || $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/runtime.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
.venv/.dev: requirements/dev.txt .venv/.runtime
	@$(BIN)/uv pip install --quiet --compile-bytecode --system-certs --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  || $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

# Not in the lock: which build of it is right depends on the machine, and pip's configuration says.
TORCH := torch==2.13.0
.venv/.torch: .venv/.runtime
	@$(BIN)/python -m pip install --quiet $(TORCH)
	@touch $@

build/frameworks/.installed: requirements/dev.txt .venv/.runtime
	@echo "Installing CatBoost, TensorFlow and PyTorch into build/frameworks: some minutes"
	@$(PYTHON) -m venv build/frameworks
	@$(BIN)/uv pip install --quiet --system-certs --python build/frameworks/bin/python --require-hashes -r requirements/dev.txt
	@build/frameworks/bin/python -m pip install --quiet $(TORCH)
	@build/frameworks/bin/python -m pip install --quiet catboost==1.2.10 tensorflow-cpu==2.21.0
	@build/frameworks/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Needs Docker, or Podman or Buildah (BUILDER=buildah), and so is not for CI. BUILD takes further
# options, such as --build-arg PIP_INDEX_URL=...
BUILDER ?= docker
IMAGE ?= modelyard
TAG ?= 0.1.0
BUILD ?=
images:
	$(BUILDER) build $(BUILD) -f infra/images/Dockerfile --build-arg VARIANT=cpu -t $(IMAGE):$(TAG) .
	$(BUILDER) build $(BUILD) -f infra/images/Dockerfile --build-arg VARIANT=cuda -t $(IMAGE):$(TAG)-cuda .
	$(BUILDER) build $(BUILD) -f infra/images/torch.Dockerfile --build-arg BASE=$(IMAGE):$(TAG)-cuda -t $(IMAGE)-torch:$(TAG) .
	$(BUILDER) build $(BUILD) -f infra/images/tensorflow.Dockerfile --build-arg BASE=$(IMAGE):$(TAG)-cuda --build-arg EXTRA=[and-cuda] -t $(IMAGE)-tensorflow:$(TAG) .

lock: | .venv/bin/uv
	@$(BIN)/uv pip compile -q --system-certs --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
	  pyproject.toml -o requirements/runtime.txt
	@$(BIN)/uv pip compile -q --system-certs --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
	  --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt

clean:
	@rm -rf .venv
