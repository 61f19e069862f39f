# Commands of the project; `make` prints them. They need Python 3.11 or newer with pip, and nothing else.
#
#   make test VENV=.venv-313 PYTHON=python3.13        another interpreter, in an environment of its own
#   make test DJANGO='~=5.2.0'                        another Django
#   make test ARGS='tests/logic -k deadline'          arguments for pytest

VENV ?= .venv
PYTHON ?= python3
DJANGO ?=
ARGS ?=
EDITION ?= datastore
# What is installed: `test` leaves out what checks style and types.
EXTRA ?= dev

PY := $(VENV)/bin/python
# Made anew when pyproject.toml changes.
STAMP := $(VENV)/.installed

# What asks the database nothing, or nothing that databases do in ways of their own.
ALIKE := $(addprefix logic/test_,arguments.py arguments_arriving.py calls_at_a_glance.py codecs.py defer.py payloads.py \
  references.py timekeeper.py urls.py) $(addprefix views/test_,access.py access_checks.py bad_input.py cloud_calls.py \
  decorators.py deferred_bad_input.py signed_access.py token_access.py) backends/test_cloud_batches.py

.DEFAULT_GOAL := help
.PHONY: help setup emulator demo demo-cloud demo-datastore serve screenshots test databases check lint format types imports docs matrix cover chaos bench bench-peers clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything into it

$(STAMP): pyproject.toml
	@test -x $(PY) || $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("soc_tasks needs Python 3.11 or newer, and this is %d.%d: run make with PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[$(EXTRA)]' $(if $(DJANGO),'Django$(DJANGO)')
	@if command -v mariadb_config >/dev/null; then $(PY) -m pip install -qq --disable-pip-version-check --editable '.[test-mysql]'; fi
	@touch $@

emulator: .venv-emulator/.installed ## Make .venv-emulator with gcloud-tasks-emulator, which tests run beside

demo: setup ## Mail 10,000 students and add up 34,006 cities while the worker is killed twice
	@$(PY) -m examples.demo

demo-cloud: setup ## The same on the backend for Cloud Tasks, while server, relay and site are killed once each
	@$(PY) -m examples.demo cloud

demo-datastore: setup ## Add up the cities as entities, without SQL, under kills (EDITION=firestore CITIES=4000: the other emulator)
	@$(PY) -m examples.demo_datastore $(EDITION) $(CITIES)

serve: setup ## Run the example site with its data, to look at (admin / admin)
	@$(PY) -m examples.serve $(ARGS)

screenshots: setup ## Take pictures of the console's pages for the documents (wants chromium)
	@$(PY) -m examples.screenshots

test: setup $(if $(filter 1,$(SOC_TASKS_REQUIRE_ALL)),emulator) ## Run the tests on this interpreter
	$(PY) -m pytest $(ARGS)

databases: setup ## Run the tests of state, backends, logic and views on PostgreSQL and on MariaDB (SHARED=1: half of the latter two on each)
	@part=0; for vendor in postgresql mariadb; do echo "== on $$vendor"; part=$$((part + 1)); \
	  $(PY) -m tests.servers $$vendor $(PY) -m pytest -q tests/state tests/backends tests/logic tests/views \
	  $(if $(SHARED),--part=$$part/2) \
	  --deselect=tests/state/test_contract.py::TestDatastore $(addprefix --ignore=tests/,$(ALIKE)) $(ARGS) || exit 1; done

check: lint types imports docs test databases ## Everything that CI runs: lint, types, import rules, links, tests

lint: setup ## Check style and format with ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup ## Put style and format right where ruff can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: setup ## Check types with mypy (strict)
	$(PY) -m mypy

imports: setup ## Check that importing soc_tasks loads neither google, grpc nor any model
	@$(PY) -c 'import sys, soc_tasks; bad = sorted({"google.cloud", "grpc", "django.db.models"} & set(sys.modules)); sys.exit("import soc_tasks loads " + ", ".join(bad) if bad else 0)'
	@echo "imports: ok"

docs: setup ## Check that the links and anchors of the documents resolve
	@$(PY) docs/check.py

matrix: ## Run the tests on Python 3.11 with Django 5.2 and on Python 3.13 with Django 6.1
	@.ci/matrix

cover: setup ## Run the tests and report which lines and branches they miss
	$(PY) -m coverage run -m pytest $(ARGS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

chaos: setup ## Kill, stop and doubt everything at full scale, on every database, and print the figures (an hour)
	$(PY) -m pytest -m long -p no:randomly $(ARGS)

bench: setup bench-peers ## Measure against peers, side by side (ARGS='drain --rounds 5': a part only; ARGS=--help lists them)
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[bench]'
	@$(PY) -m benchmarks $(ARGS)

# Each into an environment of its own; Redis and PostgreSQL themselves come with the system.
PEERS := huey dramatiq celery django-q django-tasks procrastinate emulator maintenance

bench-peers: $(PEERS:%=.venv-%/.installed) ## Install peers into environments of their own
	@command -v redis-server >/dev/null || echo "peers on Redis are left out: apt-get install redis-server"

# It needs a later Python than the others.
.venv-maintenance/.installed: benchmarks/contenders/maintenance.txt
	@python=$$(.ci/find-python 3.13) || { echo "django-maintenance-tasks is left out: it needs Python 3.13"; exit 0; }; \
	  echo "setting up .venv-maintenance (once)"; test -x .venv-maintenance/bin/python || "$$python" -m venv .venv-maintenance; \
	  .venv-maintenance/bin/python -m pip install -qq --disable-pip-version-check --requirement $< && touch $@

.venv-%/.installed: benchmarks/contenders/%.txt
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@echo "setting up .venv-$* (once)"
	@.venv-$*/bin/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

clean: ## Remove environments, caches and the example's database
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* htmlcov
	rm -f db.sqlite3*
