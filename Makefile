# make serve | demo | test | check | train ...   Everything runs in .venv, which is set up on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)-tools
PORT ?= 8000
# labelled structures (docs/training.md says how to make them); an optional local folder
DATA ?= ../shared/data/molecules/focks.h5
# where torch comes from, if not from the configured index; https://download.pytorch.org/whl/cpu is smallest without a GPU
TORCH_INDEX ?=
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup serve demo test container check format train evaluate benchmark compiled openapi pins sbom licences advisories clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with the pinned dependencies, service and client in it

$(READY): pyproject.toml tracegrad_client/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[tracing,training,generate,dev]' -e ./tracegrad_client \
		-c constraints.txt
	touch $@

serve: $(READY) ## start the service on 127.0.0.1:8000
	TRACEGRAD_PORT=$${TRACEGRAD_PORT:-$(PORT)} $(BIN)/python -m service

demo: $(READY) ## SCF cycles of a handful of molecules, minao beside ours
	$(BIN)/python benchmarks/demo.py --serve

test: $(READY) ## all tests that CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests

container: ## build the image and run it: answers, refuses, keeps jobs over a kill, stops; two replicas behind the proxy lose nothing
	deploy/check.sh

check: $(READY) ## ruff, mypy (tests and benchmarks too), import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## ruff format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(READY) ## train, or resume, the default checkpoint
	$(BIN)/python -m training fit training/runs/default.toml

evaluate: $(READY) ## every figure of the default checkpoint on val, test, ood67 and ood (two hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m training evaluate checkpoints/default $(DATA) \
		--splits val test ood67 ood --baselines runs/baselines.json -o runs/default/report.json

benchmark: $(READY) ## request latency and the parts of a prediction
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/prediction_parts.py

compiled: $(READY) ## compile the default checkpoint's forward pass, which the service then takes (two minutes; needs g++)
	OMP_NUM_THREADS=1 $(BIN)/python -m model.exported checkpoints/default

openapi: $(READY) ## write docs/openapi.json, the table of errors in docs/api.md and tracegrad.env.example
	$(BIN)/python -m service.documents

pins: $(READY) ## hashes of what the image installs on this platform, from constraints.txt
	$(BIN)/python deploy/pins.py

# tools that look at the environment from a place of their own
$(TOOLS)/.ready: deploy/supply_chain.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/supply_chain.txt
	touch $@

sbom: $(READY) $(TOOLS)/.ready ## build/sbom.json: what is installed, in CycloneDX
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o build/sbom.json

licences: $(READY) $(TOOLS)/.ready ## build/licences.md: the licence of everything that is installed
	mkdir -p build
	$(TOOLS)/bin/pip-licenses --python=$(BIN)/python --order=license --format=markdown --with-urls --output-file=build/licences.md

advisories: $(TOOLS)/.ready ## known weaknesses of the pinned versions, where a database of them can be reached
	$(TOOLS)/bin/python deploy/advisories.py constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(TOOLS) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info tracegrad_client/build tracegrad_client/*.egg-info
