# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3.11
WORKERS ?=
LOCK := $(shell cat requirements.lock pyproject.toml | cksum | tr ' ' '-')
READY := .venv/ready-$(LOCK)
READING := overview training exposure trade_off memorization claims metrics

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifneq ($(WORKERS),)
export UNLEARNING_WORKERS := $(WORKERS)
endif

.PHONY: help env doctor quick repro figures rerun lab check test test-cluster bench

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

env: $(READY)

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) on this machine: install Python 3.11, or make PYTHON=/path/to/it"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	python -m pip install $$(grep -E '^torch==' requirements.lock)
	python -m pip install -r requirements.lock
	python -m pip install --no-deps --no-build-isolation -e .
	@rm -f .venv/ready-*
	@touch $@

doctor: env  ## what is wrong with this machine, in words
	@python -m tools.doctor

quick: env  ## the whole study small, in scratch/quick, with one page to read; minutes. TEXT=file takes your corpus
	@python -m tools.doctor >/dev/null
	@python -m tools.quick $(TEXT)

repro: env  ## everything: data, models, ascents, figures, claims (dvc repro)
	@python -m tools.doctor
	@python -m tools.settings
	dvc repro
	@python -m tools.readme

figures: env  ## figures, tables and verdicts once more from the committed tables; minutes
	@python -m tools.doctor >/dev/null
	dvc repro -f -s $(READING)
	@python -m tools.readme

rerun: env  ## make rerun STAGE=train@adamw: one stage once more, after what makes the inputs it lacks; compares with the commit
	@test -n "$(STAGE)" || { echo "which stage? make rerun STAGE=base (dvc stage list names them)"; exit 1; }
	stages=$$(python -m tools.stages $(STAGE)) && dvc repro -f -s $$stages
	@python -m tools.check --commit

lab: env  ## JupyterLab on the notebooks; a run by hand overwrites nothing that is committed
	jupyter lab notebooks

check: env  ## do the results fit settings, inputs, code and commit? CLEAN=1 removes what no stage makes
	@python -m tools.check $(if $(CLEAN),--clean)

test: env  ## ruff, and the tests, the whole pipeline at toy size among them; ALL=1: those that take minutes each, too
	ruff check .
	ruff format --check src tests benchmarks
	python -m pytest -n 2 --dist loadfile --durations=25 $(if $(ALL),-m '')

test-cluster: env  ## the tests of the Ray engine: installs Ray, then runs two nodes on this machine; minutes
	python -m pip install -q -e '.[ray]'
	python -m pytest tests/test_cluster.py

bench: env  ## how fast, beside other ways to do the same (benchmarks/README.md); needs an idle machine
	@test -d data/corpus || dvc repro -q forget_sets
	python -m benchmarks.run
	python -m benchmarks.run --growth --repeats 2
