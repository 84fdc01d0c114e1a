# Every recipe is safe to repeat and quick the second time. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
KAFKA_PORT ?= 9092
REDIS_PORT ?= 6379
DEMO_ARGS ?=
TEST_ARGS ?=
# Most tests wait for a broker, a session or a process: for all of them more workers than cores; a part costs less without any.
TEST_WORKERS ?= $(if $(TEST_ARGS),0,4)
# A file's tests share the services of their module: one worker has them all. Which files come first is for the tests to say.
TEST_SPREAD := --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=
QUALITY_ARGS ?=
CHAOS_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types fmt docs bench bench-recovery chaos chaos-alerts quality services services-down wheel clean clean-kernels

help:  ## list these recipes
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

venv: $(VENV)/.ready-dev  ## the environment for work on the code, in .venv

demo: $(VENV)/.ready  ## see it find three changes; needs Python 3.11 and nothing else (DEMO_ARGS="--json --seed 7")
	@$(BIN)/driftline demo $(DEMO_ARGS)

test: $(VENV)/.ready-test  ## everything, on a real Kafka and Redis, several files at once (TEST_ARGS="tests/join -x": a part, alone)
	@.ci/system-packages
	@$(BIN)/pytest -n $(TEST_WORKERS) $(TEST_SPREAD) $(TEST_ARGS)

lint: $(VENV)/.ready-test  ## ruff
	@$(BIN)/ruff check .

types: $(VENV)/.ready-test  ## mypy, strict
	@$(BIN)/mypy

fmt: $(VENV)/.ready-test  ## sort imports and apply the safe fixes
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.ready  ## write what is generated: JSON Schema files, pages of docs/, the Grafana dashboard
	@$(BIN)/python -m driftline.schemas.generate
	@$(BIN)/python -m driftline.streams.metrics > docs/metrics.md
	@$(BIN)/python dashboards/grafana/generate.py > dashboards/grafana/driftline.json

bench: $(VENV)/.ready-dev  ## the table of docs/benchmarks.md, on a real Kafka and Redis (minutes)
	@.ci/system-packages
	@$(BIN)/python -m benchmarks.pipeline $(BENCH_ARGS)

chaos: $(VENV)/.ready-test  ## faults on a real Kafka and Redis: nothing lost, doubled or changed (CHAOS_ARGS="--short"; --list)
	@.ci/system-packages
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

chaos-alerts: $(VENV)/.ready-test  ## the same for the alert processor (CHAOS_ARGS="--short"; --list)
	@.ci/system-packages
	@$(BIN)/python -m tests.chaos.alerts $(CHAOS_ARGS)

quality: $(VENV)/.ready-test  ## false alarms and delays against promises and peers, some ten minutes (QUALITY_ARGS="--seed 7 --with-peers")
	@$(BIN)/python -m benchmarks.quality $(QUALITY_ARGS)

bench-recovery: $(VENV)/.ready-dev  ## what a fault costs, and exactly once without one (BENCH_ARGS="--rounds 5")
	@.ci/system-packages
	@$(BIN)/python -m benchmarks.recovery $(BENCH_ARGS)

services: $(VENV)/.ready  ## a real Kafka and Redis on this machine, under ./.services (KAFKA_PORT, REDIS_PORT)
	@.ci/system-packages
	@$(BIN)/python -m driftline.streams.local up --kafka-port $(KAFKA_PORT) --redis-port $(REDIS_PORT)

services-down: $(VENV)/.ready  ## stop them; the data stays
	@$(BIN)/python -m driftline.streams.local down

wheel: $(VENV)/.ready-test  ## wheel and sdist into dist/
	@$(BIN)/python -m build --outdir dist . > /dev/null
	@ls dist

clean-kernels:  ## forget compiled kernels: numba does not see a change of a kernel that another one calls
	@find driftline \( -name '*.nbi' -o -name '*.nbc' \) -delete
	@[ -z "$$NUMBA_CACHE_DIR" ] || find "$$NUMBA_CACHE_DIR" \( -name '*.nbi' -o -name '*.nbc' \) -delete

clean:  ## remove what was built or cached here, but not .services
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find driftline tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: one per set of dependencies, newer than the file that names them.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit("driftline needs Python 3.11 or newer, $(PYTHON) is %d.%d\nhint: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { .ci/system-packages venv && $(PYTHON) -m venv --clear $(VENV); }
	@touch $@

$(VENV)/.ready: $(VENV)/.python pyproject.toml
	@echo "installing driftline into $(VENV)" >&2
	@$(PIP) install --editable .
	@$(BIN)/python -m driftline.detectors.compile >&2
	@touch $@

$(VENV)/.ready-test: $(VENV)/.python pyproject.toml
	@echo "installing driftline and its test tools into $(VENV)" >&2
	@$(PIP) install --editable '.[test]'
	@$(BIN)/python -m driftline.detectors.compile >&2
	@touch $(VENV)/.ready $@

$(VENV)/.ready-dev: $(VENV)/.python pyproject.toml
	@echo "installing driftline and its development tools into $(VENV)" >&2
	@$(PIP) install --editable '.[dev]'
	@$(BIN)/python -m driftline.detectors.compile >&2
	@touch $(VENV)/.ready $(VENV)/.ready-test $@
