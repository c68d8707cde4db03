# Two commands for everybody: `make demo` and `make test`. `make help` lists the rest.
# Needs make, git and Python 3.11 or newer; all else is installed into .venv and .venvs, pinned.

PYTHON ?= python3
VENV := .venv/bin
PACKAGES := app.py chalicelib infra localcloud spotctl lab examples tools tests
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

# pip installs uv, and uv installs everything else, in a tenth of pip's time.
$(VENV)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prefect-spot needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv .venv
	@$(VENV)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# A link: a package would have to be built.
$(VENV)/spotctl: | $(VENV)/uv
	@ln -sf ../../tools/spotctl $@

.venv/ready: requirements-dev.txt $(VENV)/uv | $(VENV)/spotctl
	@echo "installing the development tools into .venv (once)"
	@$(VENV)/uv pip sync --quiet --require-hashes --python $(VENV)/python $<
	@touch $@

.venvs/lambda/ready: requirements/runtime.txt
.venvs/prefect-oldest/ready: requirements/prefect-oldest.txt
.venvs/docs/ready: requirements/docs.txt
.venvs/ministack/ready: requirements/ministack.txt
.venvs/audit/ready: requirements/audit.txt
.venvs/checkov/ready: requirements/checkov.txt
.venvs/%/ready: $(VENV)/uv
	@echo "installing $(filter %.txt,$^) into $(@D) (once)"
	@$(PYTHON) -m venv --without-pip $(@D)
	@$(VENV)/uv pip sync --quiet --require-hashes --python $(@D)/bin/python $(filter %.txt,$^)
	@touch $@

.PHONY: install
install: .venv/ready  ## Install spotctl and the development tools into .venv

.PHONY: demo
demo: .venv/ready .venvs/lambda/ready  ## One interrupted flow, rescued on this machine; KEEP=1 leaves it up, to try spotctl
	@$(VENV)/python -m localcloud.demo

.PHONY: test
test: .venv/ready .venvs/lambda/ready  ## Static checks, unit tests, laws, faults, a real Prefect, flows end to end: ten minutes
	@$(VENV)/python -m tests.tiers test

.PHONY: test-all
test-all: .venv/ready .venvs/lambda/ready .venvs/prefect-oldest/ready .venvs/docs/ready .venvs/ministack/ready  ## That, and older servers, misbehaving ones, storms, deploy, UI, planted mistakes: thirty-five
	@$(VENV)/python -m tests.tiers test-all

.PHONY: test-rest
test-rest: .venv/ready .venvs/lambda/ready .venvs/prefect-oldest/ready .venvs/docs/ready .venvs/ministack/ready  ## Only what test-all adds to test
	@$(VENV)/python -m tests.tiers rest

.PHONY: check
check: .venv/ready  ## The part of test that needs no server: static checks, unit tests, laws, faults: four
	@$(VENV)/python -m tests.tiers check

.PHONY: ui
ui: .venv/ready .venvs/lambda/ready  ## The demo, looked at in a real browser; takes the documentation's screenshots again
	@$(VENV)/python -m tests.ui.browser
	@$(VENV)/pytest --quiet tests/ui

.PHONY: bench
bench: .venv/ready .venvs/lambda/ready  ## Measured against observer, automation and its own floor; writes docs/benchmarks.md; twenty-five minutes
	@$(VENV)/python -m lab.bench

# Accepted findings, each with its reason and date on a line above it: --ignore-vuln ID
AUDIT_ACCEPTED :=

.PHONY: audit
audit: .venvs/audit/ready .venvs/checkov/ready  ## Pins against known vulnerabilities, the template against checkov; fails if it cannot ask
	@for lock in requirements.txt requirements-dev.txt requirements/*.txt; do echo "$$lock"; \
		.venvs/audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
			$(AUDIT_ACCEPTED) -r $$lock || red=1; done; \
	.venvs/checkov/bin/checkov --config-file .checkov.yaml || red=1; exit $${red:-0}

.PHONY: docs
docs: .venv/ready .venvs/docs/ready  ## Write what is generated anew, build the documentation into build/docs; fails on a dead link
	@$(VENV)/python -m tools.settings_page
	@$(VENV)/python -m tools.policies
	@$(MAKE) site

# As it was committed: the tests find what `make docs` would have to write anew.
.PHONY: site
site: .venvs/docs/ready
	@NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs build --quiet --strict
	@.venvs/docs/bin/python -m tools.site build/docs

.PHONY: simulate
simulate: .venv/ready  ## Which setting is mine? Budgets and auto, simulated: ten minutes; RUNS=, SEED=
	@$(VENV)/python -m lab.simulation $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED))

.PHONY: prices
prices: .venv/ready  ## Read Fargate's prices again into infra/prices.json; needs AWS credentials
	@$(VENV)/python -m tools.prices

.PHONY: format
format: .venv/ready  ## Format the code
	@$(VENV)/ruff format --quiet $(PACKAGES)
	@$(VENV)/ruff check --quiet --fix $(PACKAGES)

.PHONY: lock
lock: .venv/ready  ## Pin the requirements again, from requirements/*.in
	@cd requirements && for pair in lambda:../requirements.txt dev:../requirements-dev.txt \
		runtime:runtime.txt uv:uv.txt prefect-oldest:prefect-oldest.txt audit:audit.txt \
		docs:docs.txt checkov:checkov.txt ministack:ministack.txt; do \
		../$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
			--generate-hashes --no-header $(UPGRADE) $${pair%%:*}.in -o $${pair##*:} || exit 1; done

.PHONY: clean
clean:  ## Remove everything that was built or installed
	@rm -rf .venv .venvs build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@rm -rf .chalice/deployments .chalice/deployed
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
