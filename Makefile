# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3.11
WORKERS ?=
LOCK := $(shell cat requirements.lock pyproject.toml | cksum | tr ' ' '-')
READY := .venv/ready-$(LOCK)
READING := training exposure trade_off memorization claims

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifneq ($(WORKERS),)
export UNLEARNING_WORKERS := $(WORKERS)
endif

.PHONY: help env doctor plan repro figures rerun readme compare verify test test-fast test-cluster smoke lint speed bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

env: $(READY)  ## the pinned environment in .venv (made once for each lock file)

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

plan: env  ## what a full run will do, and how long that took before
	@python -m tools.plan

repro: env  ## everything: data, models, ascents, figures, claims (dvc repro)
	@python -m tools.doctor
	@python -m tools.settings
	@python -m tools.plan
	dvc repro
	@python -m tools.readme

figures: env  ## run the reading stages again: figures, tables, verdicts from the committed tables; minutes
	@python -m tools.doctor >/dev/null
	dvc repro -f -s $(READING)

rerun: env  ## make rerun STAGE=train@adamw: rerun one stage from its inputs, then compare
	@test -n "$(STAGE)" || { echo "which stage? make rerun STAGE=base (dvc stage list names them)"; exit 1; }
	@python -m tools.rerun $(STAGE)

readme: env  ## fill the README's tables from the results that lie here
	@python -m tools.readme

compare: env  ## are verdicts and numbers those of the last commit, within stated tolerances?
	@python -m tools.compare

verify: env  ## does every committed result come from the committed code, settings and inputs (hashes)?
	@python -m tools.verify

test: env  ## all tests, the whole pipeline at toy size among them; two files at a time
	python -m pytest -n 2 --dist loadfile

test-fast: env  ## the tests that take seconds
	python -m pytest -m "not slow"

test-cluster: env  ## the tests of the Ray engine: installs Ray, then runs two nodes on this machine; minutes
	python -m pip install -q -e '.[ray]'
	python -m pytest tests/test_cluster.py

smoke: env  ## the whole pipeline at toy size, in a temporary copy
	python -m pytest -m slow -k whole_pipeline -s

lint: env  ## ruff: code and notebooks checked, code formatted
	ruff check .
	ruff format --check src tests benchmarks

speed: env  ## time the reference matrix product and keep it in results/runs/machine.json
	@python -m tools.doctor --speed

bench: env  ## how fast, beside other ways to do the same (benchmarks/README.md); needs an idle machine
	@test -d data/corpus || dvc repro -q forget_sets
	python -m benchmarks.run
	python -m benchmarks.profile
	python -m benchmarks.growth
	-python -m benchmarks.pipeline_times  # says so where the study is not finished

clean:  ## forget models and ascents kept for resuming (not the data, models or results)
	rm -rf scratch
