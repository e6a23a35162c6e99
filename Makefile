# One vocabulary of tasks, the same here and in CI. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := bash
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-long compose-test check down bench bench-serving experiments lock clean

help: ## List the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

.venv/ready: requirements.lock requirements-torch.txt pyproject.toml scripts/setup
	@scripts/setup

setup: .venv/ready ## Make .venv from the lock file

demo: setup ## Run the whole loop on the embedded default, with the pages left up on a terminal
	@$(BIN)/ratchet demo

test: setup ## Run the test suite (the real loop, small, once; and everything that reads its artifacts)
	@$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-long: setup ## Real rows, an own problem under its own schedule, kill -9 again and again, a log that is away (twelve minutes)
	@$(BIN)/python -m pytest -m long

compose-test: setup ## The loop against docker-compose.yml, then every service restarted and killed under traffic (needs Docker)
	@$(BIN)/python -m stack.compose

check: setup ## Lint, types, walls, lock file, docker-compose.yml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	scripts/lock --check
	scripts/compose-check

down: setup ## End what `make demo` or `ratchet up` started
	@$(BIN)/ratchet down

bench: setup ## Measure the loop against the bare training, the release tests on real rows, one prediction; SOURCE=FILE has the rows where OpenML cannot be reached; writes docs/results/bench.md
	@$(BIN)/python -m stack.bench $(if $(SOURCE),--source "$(SOURCE)")

bench-serving: setup ## Measure the service beside its peers (needs wrk); writes docs/results/serving.md (half an hour)
	@$(BIN)/python -m stack.bench_serving

experiments: setup ## Every `ratchet experiment` at its default size; writes docs/results, whose pages name the sizes published (half a day)
	@$(BIN)/ratchet experiment gate
	@$(BIN)/ratchet experiment tuning
	@$(BIN)/ratchet experiment parity
	@$(BIN)/ratchet experiment compress
	@$(BIN)/ratchet experiment concept
	@$(BIN)/ratchet experiment watch
	@$(BIN)/ratchet experiment power
	@$(BIN)/ratchet experiment estimate
	@$(BIN)/ratchet experiment slices
	@$(BIN)/ratchet experiment lesson

lock: setup ## Write requirements.lock anew from requirements.in
	@scripts/lock

clean: ## End what runs and remove the state folder
	@if [ -x $(BIN)/ratchet ]; then $(BIN)/ratchet down; fi
	rm -rf .ratchet reports
