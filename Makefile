# The errands of this repository.  `make demo` and `make test` need nothing but git, make and a Debian 12;
# the first run installs what they need (tools/setup.sh), a second run needs no network.

SHELL  := /bin/sh
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

# Stamps: what is installed is looked at again when the list of packages changes.
RUNTIME := .venv/runtime.stamp
DEV     := .venv/dev.stamp

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs bench prove fuzz fresh peers clean

help:           ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 10

setup: $(DEV) peers  ## install everything the other errands need

demo: $(RUNTIME)  ## the main job on loopback, nothing to configure
	@.venv/bin/fumibako demo

test: $(DEV) peers  ## every test (at most 15 minutes on 2 cores)
	$(PYTEST) -q -n 2 --dist loadscope

check: $(DEV)   ## style, types, architecture (less than a minute)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTEST) -q tests/architecture

docs: $(DEV)    ## write the generated pages and the compiled texts
	$(PYTHON) -m tools.docs

bench: $(DEV) peers  ## speed, beside the peers on the same machine
	$(PYTHON) -m bench

prove: $(DEV) peers  ## kills, power cuts and damage (75 minutes on 2 cores), added to all that were before
	$(PYTHON) -m tools.prove

fuzz: $(DEV)    ## the parsers against 20,000 examples each
	FUMIBAKO_PROFILE=fuzz $(PYTEST) -q -n 2 --timeout 3600 tests/proto tests/model

fresh:          ## both commands in a new Debian 12, as root and as a user (needs root)
	tools/fresh.sh

clean:          ## remove what these errands made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

peers:
	@tools/setup.sh peers

$(RUNTIME): pyproject.toml
	@tools/setup.sh runtime
	@touch $@

$(DEV): pyproject.toml
	@tools/setup.sh dev
	@touch $@ $(RUNTIME)
