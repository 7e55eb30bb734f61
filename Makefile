# Everything runs from .venv, which `install` makes. PYTHON picks the interpreter, 3.11 or newer; the oldest found otherwise.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
CERTS ?= build/certs

.DEFAULT_GOAL := help
.PHONY: help install demo test test-ray text-check crash simulate bench bench-million bench-agent bench-rows bench-stores evaluate statistics damage fuzz deploy-check secrets certs compose-secrets check check-fast lint format clean dashboards pictures

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## Make .venv with both commands and the tools of the tests

$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[agent,backend,otel,dev]'
	@touch $@

demo: install  ## Run agent and backend on sample streams and print what they found
	@$(BIN)/python docs/demo/demo.py

test: install  ## Run every test, against real Redis and PostgreSQL servers
	@$(BIN)/python -m pytest -n 2 --dist loadfile --durations 40 --durations-min 5

# Ray is large, so it is in no other target. An environment of its own, with the tests' tools.
RAY := build/ray
test-ray: $(RAY)/installed  ## Run the tests of the engines on Ray, in an environment of its own
	@$(RAY)/bin/python -m pytest tests/agent/cli/ray_runs.py

$(RAY)/installed: $(VENV)/installed
	@test -x $(RAY)/bin/python || $(BIN)/python -m venv $(RAY)
	@$(BIN)/uv pip install --quiet --python $(RAY)/bin/python --constraint constraints.txt --editable '.[agent,backend,ray,dev]'
	@touch $@

# CUTS: how many. LEVEL: power (needs root) or kill. SEED: of an earlier run, for the same order of places.
CUTS ?= 200
LEVEL ?= power
crash: install  ## Cut the power of backend, agent and PostgreSQL under load, CUTS times
	@PYTHONPATH=tests $(BIN)/python -m crash --cuts $(CUTS) --level $(LEVEL) $(if $(SEED),--seed $(SEED))

# SEEDS: how many. SEED: the first; alone, it is run again and every event is printed.
SEEDS ?= $(if $(SEED),1,2000)
simulate: install  ## Run both sides in virtual time on a simulated world full of faults, with SEEDS seeds
	@PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(SEEDS) $(if $(SEED),--first $(SEED))

# ROUNDS: of each figure, of which the median is shown. ONLY: part of the name of what is run. ARGUMENTS: more of them.
ROUNDS ?= 5
ONLY ?=
ARGUMENTS ?=
bench: install  ## Measure the service beside the floors it stands on, ROUNDS times (ONLY, ARGUMENTS)
	@PYTHONPATH=load:tests $(BIN)/python -m bench --rounds $(ROUNDS) $(if $(ONLY),--only "$(ONLY)") $(ARGUMENTS)

# RECORDS: how many.
RECORDS ?= 1000000
bench-million: install  ## Send a million records through one process, then start it on their log (RECORDS)
	@PYTHONPATH=load:tests $(BIN)/python -m bench --only million --million $(RECORDS) $(ARGUMENTS)

# How many; a smaller run is part of `test`. Ten million take about 5 minutes and 25 GB of /tmp.
ROWS ?= 10000000
bench-rows: install  ## Measure retention in a PostgreSQL with 10,000,000 outcomes (ROWS)
	@PYTHONPATH=tests $(BIN)/python load/store_rows.py --rows $(ROWS)

bench-agent: install  ## Measure the agent's signals beside plain NumPy loops, and a million rows from a file (ARGUMENTS)
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python load/agent_signals.py $(ARGUMENTS)

bench-stores: install  ## Measure what a record costs in Redis and PostgreSQL, and the driver alone
	@PYTHONPATH=tests $(BIN)/python load/store_costs.py

# ARGUMENTS: `tune` decides on the tuning texts; `--few` for a third of the streams; `--lengths 20 200`.
evaluate: install  ## Measure how well the signals tell broken streams of real text from healthy ones (ARGUMENTS)
	@PYTHONPATH=load:tests $(BIN)/python -m evaluate --command "make evaluate" $(ARGUMENTS)

certs: install  ## Make a certificate authority and certificates for development, in build/certs (CERTS)
	@$(BIN)/python compose/certificates.py $(CERTS)

compose-secrets: install  ## Make the secrets and certificates of compose/, in compose/secrets; again: new certificates
	@$(BIN)/python compose/credentials.py compose/secrets

dashboards: install  ## Render grafana/dashboards.py into the checked-in JSON
	@$(BIN)/python grafana/dashboards.py

pictures: install  ## Draw panels of the dashboards from a load run of some minutes, into docs/pictures
	@PYTHONPATH=tests $(BIN)/python grafana/pictures.py

lint: install  ## Lint, format check, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@MYPYPATH=load:tests $(BIN)/mypy --follow-imports=silent load/bench load/evaluate load/*.py
	@$(BIN)/lint-imports

# How many; a smaller run is part of `test`.
DAMAGES ?= 100000
damage: install  ## Damage 100,000 sealed segments: each found, everything good around it recovered
	@$(BIN)/python tests/damaged_segments.py --damages $(DAMAGES)

# A smaller run is part of `test`.
statistics: install  ## Simulate calibrations and streams at full size: promised error rates, false alarms, delays (ARGUMENTS)
	@PYTHONPATH=tests $(BIN)/python -m statistical $(ARGUMENTS)

# How long; the corpus and some seconds of each target are part of `test`.
MINUTES ?= 10
fuzz: install  ## Fuzz the parsers that meet bytes of strangers or of a damaged disk, for MINUTES
	@PYTHONPATH=tests $(BIN)/python -m fuzz --minutes $(MINUTES)

# The tests of tests/deploy, slow ones included; the real Helm and others are fetched into build/tools once.
deploy-check: install  ## Check chart, Compose files, images, rules and dashboards by the real tools, without a cluster
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/deploy

# Some gigabytes, because of torch: an environment of its own, which neither `install` nor `test` needs.
text-check: install  ## Install the extra text into build/text and check the vectors of MiniLM, without network
	@test -x build/text/bin/python || $(PYTHON) -m venv build/text
	@$(BIN)/uv pip install --quiet --python build/text/bin/python --constraint constraints.txt --editable '.[agent,text,dev]'
	@build/text/bin/python -m pytest -q tests/agent/embed/minilm_checks.py

secrets: install  ## Look for keys and passwords in the history, as `check` does
	@$(BIN)/gitleaks git --no-banner --redact --log-level warn .

check-fast: lint  ## Lint, types and the tests that start no server
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow'

check: lint secrets test  ## What CI runs: check-fast, secrets and all of test

format: install  ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

clean:  ## Remove what the build and the tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
