# Every target is explained by the comment behind it; `make help` prints them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
STAMP := $(VENV)/.installed
NEXTJS := dataplane/nextjs
NODE_STAMP := $(NEXTJS)/node_modules/.package-lock.json
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-long coverage mutants soak faults lint lint-types lint-rest format bench bench-dataplane bench-logins bench-migrations bench-moves bench-history bench-silent lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# uv takes a sixth of pip's time for the same locked files; where it can't reach the index as pip can
# (another certificate store, an index that only pip is told of), pip does it.
PIP := $(BIN)/python -m pip install --disable-pip-version-check
UV := $(BIN)/uv --system-certs pip install --python $(BIN)/python
LOCKED := --require-hashes -r requirements/dev.lock
SELF := --no-deps --no-build-isolation -e .

$(STAMP): requirements/dev.lock requirements/uv.lock setup.cfg
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) …"
	@{ { $(PIP) --require-hashes -r requirements/uv.lock && $(UV) $(LOCKED) && $(UV) $(SELF); } \
	|| { $(PIP) $(LOCKED) && $(PIP) $(SELF); }; } \
	> $(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log; exit 1; }
	@touch $@

$(NODE_STAMP): $(NEXTJS)/package-lock.json
	@echo "installing the locked packages into $(NEXTJS)/node_modules …"
	@cd $(NEXTJS) && npm ci --no-audit --no-fund --silent
	@touch $@

demo: $(STAMP) ## Start everything on this machine, subscribe three customers, watch them become tenants (ARGS="--exit" to end, "--warm" for clusters made ahead)
	@$(BIN)/controlplane demo $(ARGS)

test: $(STAMP) lint ## Lint, type-check and run the whole suite, real Terraform included
	@$(BIN)/python -m pytest $(PARALLEL) -m "not soak" $(ARGS)

soak: $(STAMP) ## The long runs: minutes of load, a million requests, outages (sizes by environment, see tests/dataplane)
	@$(BIN)/python -m pytest -m soak $(ARGS)

faults: $(STAMP) ## Inject every fault of the catalogue, the long ones too, and print what held (docs/faults.md; about an hour)
	@$(BIN)/python -m tests.faults $(ARGS)

mutants: $(STAMP) ## Turn each decision of controlplane/domain round and see a test of tests/domain fail (minutes; ARGS="--module drift" for one)
	@$(BIN)/python -m tests.mutants $(ARGS)

test-long: $(STAMP) ## Mutants, faults and soaks, one after the other, and a dated line about it in benchmarks/RESULTS.md (hours)
	@$(BIN)/python -m tests.long $(ARGS)

test-fast: $(STAMP) ## The suite without the slow acceptance and browser tests
	@$(BIN)/python -m pytest $(PARALLEL) -m "not acceptance and not browser and not soak" $(ARGS)

coverage: $(STAMP) ## Which lines and branches the suite of `make test-fast` runs; no part of `make test`
	@$(BIN)/python -m pytest $(PARALLEL) -m "not acceptance and not browser and not soak" --cov $(ARGS)

lint: $(STAMP) ## ruff, mypy, import contracts, biome for TypeScript, committed secrets, dangers in the registry's schema, the budget of things to know (docs/adr/0010-budget.md)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync lint-types lint-rest

lint-types: $(STAMP)
	@$(BIN)/mypy
	@git ls-files -z -- ':!*.lock' ':!*-lock.json' ':!*.lock.hcl' ':!*.svg' | xargs -0 $(BIN)/detect-secrets-hook $(UNGUESSED)

lint-rest: $(STAMP) $(NODE_STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@cd $(NEXTJS) && npm run --silent lint
	@$(BIN)/python -m tests.registry_lint
	@$(BIN)/python -m tests.budget

# Keys and tokens by their shape; guesses by randomness or by the names of variables are off: a repository full of
# digests and tests of passwords is full of those.
UNGUESSED := $(addprefix --disable-plugin ,Base64HighEntropyString HexHighEntropyString KeywordDetector)

format: $(STAMP) ## Let ruff put the code in order, and write the tables of steps into the pages
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .
	@$(BIN)/python -m tests.docs.step_tables

bench: bench-core bench-dataplane bench-logins bench-migrations bench-moves bench-history bench-silent ## Every benchmark, each against its peers and its floor in the same run

bench-core: $(STAMP) ## The registry's hot paths: claims at any backlog, placing, a sweep, the webhook (ARGS=--quick for a short one)
	@$(BIN)/python -m benchmarks.core $(ARGS)

bench-dataplane: $(STAMP) ## The resolver, the pools and the middleware (ARGS=--quick for a short one)
	@$(BIN)/python -m benchmarks.dataplane $(ARGS)

bench-logins: $(STAMP) ## How many tenants' logins a process of the data plane can fetch
	@$(BIN)/python -m benchmarks.logins $(ARGS)

bench-migrations: $(STAMP) ## Fleet migrations over hundreds of databases
	@$(BIN)/python -m benchmarks.migrations $(ARGS)

bench-moves: $(STAMP) ## A tenant moved under writes: is a row lost, and for how long is none taken? (ARGS="--gigabytes 0.1" for a short one)
	@$(BIN)/python -m benchmarks.moves $(ARGS)

bench-history: $(STAMP) ## Pruning, by how large the registry is (ARGS=--quick for a short one)
	@$(BIN)/python -m benchmarks.history $(ARGS)

bench-silent: $(STAMP) ## Webhooks beside connections that say nothing (ARGS=--quick for a short one)
	@$(BIN)/python -m benchmarks.silent $(ARGS)

lock: ## Resolve the dependencies anew
	@$(PIP) --quiet --upgrade uv
	@$(BIN)/uv pip compile setup.cfg --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/run.lock
	@$(BIN)/uv pip compile setup.cfg requirements/build.in --extra localcloud --extra test --extra lint --extra bench --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/dev.lock
	@echo uv | $(BIN)/uv pip compile - --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate -q -o requirements/uv.lock

clean: ## Remove the environment and every cache
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
