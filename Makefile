# Everything a checkout needs: `make demo` runs a whole search, `make test` the whole test suite.
# Nothing but Python 3.11 to 3.13 and make must be there; both targets make .venv on first use.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
# A CUDA build is asked for with TORCH='torch==2.13.0 --index-url <the index of that build>'.
TORCH ?= torch==2.13.0
BIN := .venv/bin
STAMP := .venv/.complete

.DEFAULT_GOAL := help
.PHONY: help coverage venv demo test test-full test-browser torture-short torture lint format catalog clean

help:
	@echo "make demo           grow a family of small models, search for the best merge, prove and export it"
	@echo "make test           the whole test suite"
	@echo "make test-full      the same with the slow tests"
	@echo "make test-browser   only the tests that drive a browser"
	@echo "make torture-short  only the tests that kill processes of a running service"
	@echo "make lint           ruff, mypy and the import rules"
	@echo "make catalog        write core/catalog.json from the registries"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt native.txt
	@test -n "$(PYTHON)" || { echo "Huarizo needs Python 3.11, 3.12 or 3.13: install one, or set PYTHON="; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r native.txt
	@touch $(STAMP)

demo: venv
	$(BIN)/python -m examples.demo

test: venv
	$(BIN)/python -m pytest --cov --cov-report= -m "not slow"
	$(MAKE) --no-print-directory coverage

test-full: venv
	$(BIN)/python -m pytest --cov --cov-report=
	$(MAKE) --no-print-directory coverage

# What is measured is what the tests' own process runs; workers and services in processes of their own are tested,
# not counted. The rooms and the ground must be covered to nine tenths.
coverage:
	$(BIN)/python -m coverage report --skip-covered
	$(BIN)/python -m coverage report --fail-under=90 --include='core/*,store/*,search/*,merging/*,evaluation/*' --format=total

test-browser: venv
	$(BIN)/python -m pytest -m browser

torture-short: venv
	$(BIN)/python -m pytest -m "torture and not slow"

torture: venv
	$(BIN)/python -m pytest -m torture

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

catalog: venv
	$(BIN)/python -m workers.catalog

clean:
	rm -rf .venv var build dist *.egg-info
