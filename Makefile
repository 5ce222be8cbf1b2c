# Works in a fresh checkout with Python 3.11+ and make. Paths are relative, because the checkout's may contain spaces.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1

DATA ?= mnist
NORMAL ?= 5
NAME ?= $(DATA)-$(NORMAL)
DATA_DIR ?= data
RECIPE ?=
EPOCHS ?=
FALSE_ALARM_RATE ?= 0.01
SEED ?= 1337
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve train demo test test-attack test-cluster test-docker attack bench bench-anomalib bench-images bench-peers bench-training soak lint types lock audit clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

serve: $(VENV)/ready-serving  ## serve model_store/ on http://127.0.0.1:8000 (HOST=, PORT=)
	ANOMALY_LOG_FORMAT="$${ANOMALY_LOG_FORMAT:-console}" $(PY) -m app $(if $(HOST),--host "$(HOST)") $(if $(PORT),--port "$(PORT)")

train: $(VENV)/ready-training  ## train and publish a model (DATA=, NORMAL=, NAME=, DATA_DIR=, RECIPE=, EPOCHS=, FALSE_ALARM_RATE=, SEED=, ARGS=)
	$(PY) -m training --data "$(DATA)" --normal "$(NORMAL)" --name "$(NAME)" --data-dir "$(DATA_DIR)" \
	  $(if $(RECIPE),--recipe "$(RECIPE)") $(if $(EPOCHS),--epochs "$(EPOCHS)") \
	  --false-alarm-rate "$(FALSE_ALARM_RATE)" --seed "$(SEED)" $(ARGS)

demo: $(VENV)/ready-training  ## train one model per digit into demo_store/ and serve them (DATA=mnist or digits, DATA_DIR=, EPOCHS=, HOST=, PORT=)
	$(PY) -m training.demonstration --data "$(DATA)" --data-dir "$(DATA_DIR)" --store demo_store $(if $(EPOCHS),--epochs "$(EPOCHS)")
	ANOMALY_MODEL_STORE=demo_store ANOMALY_MODEL="$(DATA)-$(NORMAL)" $(MAKE) --no-print-directory serve

# One OpenMP thread per process: the threads of several processes would compete for the cores.
test: $(VENV)/ready-dev  ## run all tests (ARGS=; ARGS=--cov adds branch coverage)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(ARGS)

test-attack: $(VENV)/ready-dev  ## attack a service in the short form of every attack, with nothing beside it
	$(PY) -m pytest -m attack tests/benchmarks/attack

test-cluster: $(VENV)/ready-dev  ## test the Ray job on a local cluster of three nodes, with killed processes
	OMP_NUM_THREADS=1 $(PY) -m pytest -m cluster

test-docker:  ## test the containers with docker compose; skipped without a Docker engine
	sh tests/docker.sh

bench-training: $(VENV)/ready-training  ## compare our training loop with the tutorial's (DATA_DIR=)
	$(PY) -m benchmarks.training_speed --data-dir "$(DATA_DIR)"

bench: $(VENV)/ready-serving  ## measure the speed of the service as ratios (Linux, two cores, wrk; ARGS=)
	$(PY) -m benchmarks.serving $(ARGS)

bench-images: $(VENV)/ready-serving  ## measure decoding and serving of photographs as ratios (Linux, two cores, wrk; ARGS="--photographs … --rounds …")
	$(PY) -m benchmarks.images $(ARGS)

bench-peers: $(VENV)/ready-serving  ## compare the service with other model servers (ARGS="--peers … --images … --rounds …")
	$(PY) -m benchmarks.peers $(ARGS)

bench-anomalib: $(VENV)/ready-training  ## compare the recipe features with anomalib on an image folder (DATA=, DATA_DIR=, ARGS="--models … --seeds …")
	$(PY) -m benchmarks.against_anomalib "$(DATA)" --data-dir "$(DATA_DIR)" $(ARGS)

soak: $(VENV)/ready-dev  ## overload, misbehaving clients, draining, model swaps, half an hour of mixed load (ARGS=)
	$(PY) -m benchmarks.soak $(ARGS)

attack: $(VENV)/ready-dev  ## attack the service beside an honest client, memory limited (Linux; ARGS="NAME … --short")
	$(PY) -m benchmarks.attack $(ARGS)

lint: $(VENV)/ready-dev  ## run ruff, mypy (strict) and the import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -c "from importlinter.cli import lint_imports_command; lint_imports_command()" --no-logo --no-cache
	$(PY) -m mypy

types: $(VENV)/ready-dev  ## update docs/typescript/anomaly.d.ts from the OpenAPI document (needs Node.js)
	$(PY) docs/typescript/generate.py

lock: $(VENV)/bin/uv  ## update requirements.lock
	$(PY) -m uv pip compile --universal --python-version 3.11 --all-extras --no-annotate --no-header \
	  --no-emit-index-url --generate-hashes --upgrade pyproject.toml -o requirements.lock

audit: $(VENV)/bin/uv  ## compare requirements.lock with the current advisories (needs the network)
	$(PY) -m uv tool run --from "pip-audit==$(PIP_AUDIT_VERSION)" pip-audit --require-hashes --disable-pip --requirement requirements.lock

clean:  ## delete the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The builds of torch in a backend index are other files than those of the default index, whose SHA-256 is in
# requirements.lock. All other packages are compared with it there, too.
$(VENV)/backend.lock: requirements.lock | $(VENV)/bin/uv
	awk '/^[^ ]/ {torch = /^torch(vision)?==/; if (torch) sub(/ \\$$/, "")} !torch || /^[^ ]/' $< > $@

# requirements.lock pins the versions and files, the extras select the packages. Machines without a GPU get torch without
# CUDA from the backend index. If that fails (without retries, so at once), the second command uses the default index.
$(VENV)/ready-serving: EXTRA := --extra client --extra watch --extra mqtt
$(VENV)/ready-training: EXTRA := --extra client --extra watch --extra mqtt --extra training
# The project itself, so that deploy/ray/score_dataset.py can import it from any folder.
$(VENV)/ready-dev: EXTRA := --extra client --extra watch --extra mqtt --extra camera --extra training --extra export --extra ray --extra dev --editable .
$(VENV)/ready-serving $(VENV)/ready-training $(VENV)/ready-dev: $(VENV)/bin/uv pyproject.toml requirements.lock $(VENV)/backend.lock
	UV_HTTP_RETRIES=0 $(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) --torch-backend=auto \
	  --constraint $(VENV)/backend.lock -r pyproject.toml $(EXTRA) 2>/dev/null \
	|| $(PY) -m uv pip install --compile-bytecode --python $(PY) --constraint requirements.lock -r pyproject.toml $(EXTRA)
	touch $@
