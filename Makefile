# Everything that a checkout can do. Each target makes what it needs, in .venv and nowhere else.
#
#   PYTHON=…         the interpreter that .venv is made with (3.10 or newer; the first suitable one otherwise)
#   PYTEST_ARGS=…    more arguments for pytest:  make test PYTEST_ARGS="tests/unit -k journal"

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
PYTEST_ARGS ?=

bin := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test acceptance test-objectlock bench lint format docs-check collector clean

help:  ## Show this list
	@awk -F ':.*## +' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: .venv/.made  ## Show what it does: the whole way, on this machine
	@echo 'make demo: this takes about 20 seconds' >&2
	$(bin)/otel-audit demo

test: .venv/.made  ## Run the tests, without the long ones
	$(bin)/python -m pytest -m "not slow" $(PYTEST_ARGS)

acceptance: .venv/.made  ## Run the long variants of the tests
	$(bin)/python -m pytest -m slow $(PYTEST_ARGS)

test-objectlock: .venv/.made  ## Show that archived records cannot be deleted, on Ceph (installs it with apt-get, as root)
	tests/engines/ceph.sh
	$(bin)/python -m pip install --quiet --group objectlock
	OTEL_AUDIT_REQUIRE=collector,ceph $(bin)/python -m pytest tests/acceptance/test_object_lock.py $(PYTEST_ARGS)

bench: .venv/.made  ## Measure, side by side with OpenTelemetry's own handler
	$(bin)/python -m benchmarks

lint: .venv/.made  ## Check style, layout and types
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

format: .venv/.made  ## Lay the code out as `make lint` wants it
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

docs-check: .venv/.made  ## Run what the documentation shows, follow its links
	$(bin)/python -m pytest tests/docs $(PYTEST_ARGS)

collector:  ## Build the OpenTelemetry Collector for the tests (needs Go; kept outside the checkout)
	collector-config/build.sh

clean:  ## Remove everything that the other targets made in the checkout
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when pyproject.toml changes. `make clean` first to change the interpreter.
.venv/.made: pyproject.toml
	@test -n "$(PYTHON)" || { \
	  echo "make: no Python 3.10 or newer found; install one, or say where it is: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $(PYTHON) does not run, or is older than 3.10" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  version=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "make: $(PYTHON) cannot make virtual environments: the module ensurepip is missing." >&2; \
	  echo "      On Debian and Ubuntu: apt-get install python$$version-venv" >&2; \
	  exit 1; }
	@$(bin)/python -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@echo 'make: installing into .venv with pip; this takes a minute or two, and longer where packages have to be downloaded' >&2
	$(bin)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(bin)/python -m pip install --quiet -e '.[cli]' --group test --group lint --group bench
	@touch $@
