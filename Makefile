# The first use of any target sets up everything that it needs: see scripts/setup-system for the system's packages.

PYTHON ?= python3
CONFIG ?= $(firstword $(wildcard relay.toml) relay.example.toml)
PROGRAMS ?= 5000
SEED ?= $(shell date +%s)
BIN := .venv/bin
READY := .venv/.ready
LOCAL := build/ministack/.ready
SYSTEM := build/.system

.DEFAULT_GOAL := help
.PHONY: help demo test slow soak chaos lint format bench screens synth synth-forwarder image deploy deploy-forwarder local lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(SYSTEM): scripts/setup-system
	@mkdir -p build
	@PYTHON=$(PYTHON) scripts/setup-system
	@touch $@

$(READY): $(SYSTEM) requirements/dev.txt pyproject.toml
	@echo "setting up .venv from requirements/dev.txt"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(LOCAL): $(READY) requirements/local.txt
	@echo "setting up build/ministack from requirements/local.txt"
	@test -x build/ministack/bin/python || $(PYTHON) -m venv build/ministack
	@build/ministack/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/local.txt
	@touch $@

demo: $(LOCAL) ## the whole pipeline on this machine, on real images
	@$(BIN)/python -m local.demo

test: $(LOCAL) ## all tests but the slow ones
	$(BIN)/pytest -m "not slow"

slow: $(LOCAL) ## the slow ones, on the local cloud: an operator's hour, sixty pushes at once; four minutes
	$(BIN)/pytest -m slow

soak: $(READY) ## the model, for long: PROGRAMS=5000 SEED=1
	ECR_RELAY_MODEL_PROGRAMS=$(PROGRAMS) $(BIN)/pytest -s --timeout 0 --hypothesis-seed=$(SEED) tests/model

chaos: $(LOCAL) ## kills and faults on the local cloud, under load: SEED=1
	$(BIN)/python -m tests.chaos --seed $(SEED)

lint: $(READY) ## ruff, mypy, import-linter, deptry; the generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python docs/generate.py --check

format: $(READY) ## let ruff format and mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screens: $(LOCAL) ## docs/screens.md, what an operator sees
	$(BIN)/python -m local.screens

bench: $(LOCAL) ## speed, as ratios within one run
	$(BIN)/python -m tests.bench

synth: $(READY) ## the template, in build/cdk.out
	$(BIN)/python -m stack.app --config $(CONFIG) --out build/cdk.out

synth-forwarder: $(READY) ## the template of the forwarder beside a source elsewhere, in build/forwarder.out
	$(BIN)/python -m stack.app --forwarder --config $(CONFIG)

image: ## the copier's image, by docker or buildah
	copier_image/build

deploy: $(READY) ## to the AWS account that the environment's credentials are of
	scripts/deploy $(CONFIG)

deploy-forwarder: $(READY) ## to the source's account, where the relay runs in another account or region
	scripts/deploy --forwarder $(CONFIG)

local: $(LOCAL) ## the pipeline on this machine, until interrupted
	@$(BIN)/ecr-relay local up --state .ecr-relay

lock: $(READY) ## pin anew what pyproject.toml asks for
	cd requirements && for extra in dev lambda copier; do \
	  case $$extra in dev) extras="--extra lambda --extra cli --extra stack --extra dev";; lambda) extras="--extra lambda";; *) extras="";; esac; \
	  ../$(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header \
	    --no-emit-index-url --no-emit-find-links $$extras --output-file $$extra.txt ../pyproject.toml; done
	cd requirements && ../$(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header \
	  --no-emit-index-url --no-emit-find-links --output-file local.txt local.in

clean: ## everything that was made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
