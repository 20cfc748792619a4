# demo   the main job from nothing: install, serve, embed four real sets, neighbours, estimates
# serve  the service on 127.0.0.1:8000, data in task2vec-data/
# test   the test suite
# check  lint, format, types, import contracts, bandit
# audit  known faults of the packages that are installed; asks an advisory service
# bench  the benchmarks there are, one command each

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo serve test check audit bench clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@sed -n 's/^# \([a-z]*  *.*\)/make \1/p' Makefile

demo: $(VENV)/.demo
	@$(BIN)/task2vec demo

serve: $(VENV)/.worker
	@$(BIN)/task2vec serve

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit -q -c pyproject.toml -r app migrations

# Not part of `check`, which needs no network. Strict: a package that could not be asked about, or a
# service that does not answer, is no clean bill.
audit: $(VENV)/.dev $(VENV)/.audit
	@$(VENV)/.audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

$(VENV)/.audit: $(BIN)/python
	@$(BIN)/python -m venv $@
	@$@/bin/pip install -q 'pip-audit>=2.10'

bench:
	@for file in benchmarks/[a-z]*.py; do \
	  printf '$(BIN)/python %-32s %s\n' "$$file" "$$(sed -n '1s/^"""//; 1s/"""$$//; 1p' "$$file")"; \
	done

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'error: Python 3.11 or newer is needed. Name one: make PYTHON=python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# pip's log becomes one line that changes; the stamp is written only when all went well.
define install
	@echo 'Installing into $(VENV): some gigabytes with torch, a few minutes the first time.'
	@if [ -t 1 ]; then start='\r\033[K  ' end=''; else start='  ' end='\n'; fi; \
	$(BIN)/pip install --progress-bar off -c constraints.txt -e '.[$(1)]' 2>&1 \
	| awk -v start="$$start" -v end="$$end" ' \
	  function show(step) { printf "%s%s%s", start, step, end; fflush() } \
	  /^ERROR/                { sub(/^ERROR: /, ""); printf "\nerror: %s\n", $$0 } \
	  /^Collecting /          { n++; if (end == "" || n % 20 == 0) show(n " packages found") } \
	  /^Installing collected/ { show("unpacking") } \
	  END                     { if (end == "") print "" }'
	@touch $@
endef

$(VENV)/.worker: $(BIN)/python pyproject.toml constraints.txt
	$(call install,worker)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(call install,worker$(comma)demo)
	@touch $(VENV)/.worker

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(call install,worker$(comma)demo$(comma)dev)
	@touch $(VENV)/.worker $(VENV)/.demo

comma := ,
