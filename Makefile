# Two commands do everything: `make demo` and `make test`. Both install what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Built once per user, not per checkout: cfsctl takes ten minutes.
JUDGES ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cfs-judges
PROJECTS := $(patsubst %/pyproject.toml,%,$(wildcard cfs_core/pyproject.toml plugins/*/pyproject.toml plugins/*/*/pyproject.toml))

.PHONY: help demo test campaign fuzz fuzz-keep test-quick lint matrix lowest bench docs man surface dist clean host-demo host-test venv

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: host-demo $(BIN)/cfs  ## Build a small Debian image, install it to a disk image, boot it, say what was seen
	PATH="$(CURDIR)/$(BIN):$$PATH" demo/run

test: export CFS_JUDGES := $(abspath $(JUDGES))/bin
test: host-test venv lint-and-lowest  ## Everything: unit tests, judges, virtual machines
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -rR -m "not vm and not campaign"
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -rR -m "vm and not campaign"

# What uses one core each runs beside each other.
.PHONY: lint-and-lowest lowest-core lowest-plugin
lint-and-lowest: venv
	$(MAKE) --no-print-directory -j 2 --output-sync=target lowest-plugin lint lowest-core

campaign: export CFS_JUDGES := $(abspath $(JUDGES))/bin
campaign: host-test venv  ## What takes too long for every change: whole upgrades in machines, Secure Boot, stock images, packages
	$(BIN)/python -m pytest -q -rR -m campaign

SECONDS_EACH ?= 180
TARGETS ?=
fuzz: venv  ## Fuzz every parser, guided by coverage; SECONDS_EACH=180 for each, TARGETS="tar erofs" for some
	$(BIN)/python -m pip install -q --group fuzz
	PYTHONPATH=fuzz $(BIN)/python -m cfs_fuzz all $(TARGETS) --seconds $(SECONDS_EACH)

fuzz-keep: venv  ## Take what `make fuzz` found worth keeping into fuzz/corpus
	PYTHONPATH=fuzz $(BIN)/python -m cfs_fuzz keep $(TARGETS)

test-quick: venv  ## Unit tests only, in seconds
	$(BIN)/python -m pytest -q -n 2 -m "not vm and not slow and not judge"

lint: venv  ## ruff and mypy --strict
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy

matrix: venv  ## Every package alone, on every Python there is, with the lowest and the newest dependencies
	$(BIN)/nox
	$(BIN)/nox -s table

lowest: lowest-core lowest-plugin  ## One row of the matrix: this Python, the lowest dependencies

lowest-core lowest-plugin: lowest-%: venv
	$(BIN)/nox -k "lowest and $*" -p $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

bench: venv  ## Benchmarks against the peers that are installed
	$(BIN)/python -m benchmarks

docs: venv  ## Build the documentation (docs/_build/html); warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

surface: venv  ## Write the surface for plugins again, after it was changed on purpose
	PYTHONPATH=tests $(BIN)/python -m builders.surface

man: venv  ## Write the man pages again, after commands or options changed
	PYTHONPATH=docs $(BIN)/python -m generator

dist: venv  ## Build what an index takes: source distributions and wheels of core, every plugin and cfs-installer (dist/)
	for project in $(PROJECTS) packages/cfs-installer; do $(BIN)/uv build -q -o dist $$project || exit; done

host-demo:
	scripts/host-setup

host-test: host-demo
	scripts/test-setup $(JUDGES)

venv: $(VENV)/.editable

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { scripts/host-setup && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install -q --upgrade pip

$(BIN)/cfs: $(VENV)/bin/python pyproject.toml packages/cfs-installer/pyproject.toml
	$(BIN)/python -m pip install -q .
	@touch $@

# The projects themselves, and not the checkout's own, which would name them a second time and by path.
$(VENV)/.editable: $(VENV)/bin/python pyproject.toml $(PROJECTS:%=%/pyproject.toml)
	$(BIN)/python -m pip install -q $(PROJECTS:%=-e %) --group dev --group docs
	@touch $@ $(BIN)/cfs

clean:  ## Remove what was built here
	rm -rf $(VENV) .cache build dist docs/_build docs/reference/generated
