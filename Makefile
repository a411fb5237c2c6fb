# The chores. Everything lives in .venv; the machine needs make and Python 3.11 to 3.13 with its venv module, nothing else.
# Another Python: make setup PYTHON=python3.13. More options for fuzz, test, bench and chaos: make fuzz ARGS="--seed 7 --target linux4".

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup fuzz test check coverage format docs bench chaos clean local-images compose-test

help: ## list the chores
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 - \2/p' Makefile

setup: $(READY) ## prepare .venv; the other chores do it by themselves

fuzz: $(READY) ## fuzz for 60 seconds in two processes, results in entryfuzz.db (ARGS="..." for more options)
	$(BIN)/entryfuzz fuzz --jobs 2 $(ARGS)

test: $(READY) ## run every test
	$(BIN)/pytest --numprocesses auto $(ARGS)

check: $(READY) ## check format, lint, types and import rules, run the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses auto -m "not slow"

coverage: $(READY) ## run the tests of the reference, which must reach every branch of it
	$(BIN)/pytest --numprocesses auto tests/reference --cov=reference --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

format: $(READY) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## write again the pages that are made from the code
	$(BIN)/entryfuzz targets paths linux4 --markdown > docs/entry-paths.md

bench: $(READY) ## measure cases per second
	$(BIN)/entryfuzz bench $(ARGS)

local-images: ## build every image of docker-compose.yml from Debian packages, where no registry can be reached (ARGS="--renew")
	deploy/local-images $(ARGS)

compose-test: ## start docker-compose.yml from nothing, run a campaign in it, read what it found (needs a Docker engine)
	deploy/compose-test

chaos: $(READY) ## do a campaign on a cluster that everything happens to (docs/chaos.md; needs Redis and PostgreSQL)
	PYTHONPATH=.:tests $(BIN)/python tests/chaos/chaos.py $(ARGS)

clean: ## remove .venv, caches and build output; databases stay
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

WANTED = import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
  "entryfuzz needs Python 3.11, 3.12 or 3.13; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make setup PYTHON=python3.13")
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary :all: --constraint constraints.txt

# Only wheels, so that nothing is ever compiled here; setuptools first, so that the version that is pinned does the build.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON): not found; entryfuzz needs Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@$(PYTHON) -c '$(WANTED)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { rm -rf .venv; echo "$(PYTHON) cannot make .venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.[dev,postgres]'
	@touch $@
