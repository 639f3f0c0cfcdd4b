# `make up` runs everything, `make test` tests everything; `make help` lists the rest. CI runs the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PROTO_DIR := imserver/protocol/proto
GEN_DIR := imserver/protocol/gen
SDK_DIR := tests/acceptance/wasm
SDK_STAMP := $(SDK_DIR)/node_modules/.package-lock.json
SOURCES := imserver tasks gateway tests manage.py

.DEFAULT_GOAL := help
.PHONY: help up test lint types format bench proto docs clean libcurl chromium sdks

help:  ## what one can do here
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/.product libcurl  ## start everything on this machine; Ctrl-C stops it
	@$(BIN)/python manage.py up

test: $(VENV)/.dev libcurl chromium sdks  ## run all tests; ARGS="-k word" picks some
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev  ## look for mistakes and odd formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.dev  ## check the types
	$(BIN)/mypy

format: $(VENV)/.dev  ## format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.dev libcurl  ## measure; ARGS are those of `manage.py bench`
	$(BIN)/python manage.py bench $(ARGS)

proto: $(VENV)/.dev  ## generate the protobuf code again
	rm -f $(GEN_DIR)/*_pb2.py $(GEN_DIR)/*_pb2.pyi
	$(BIN)/python -m grpc_tools.protoc -I$(GEN_DIR)=$(PROTO_DIR) \
	    --python_out=. --pyi_out=. $(wildcard $(PROTO_DIR)/*.proto)

docs: $(VENV)/.dev  ## write the generated pages of docs/ again
	$(BIN)/python manage.py checkconfig --markdown > docs/configuration.md

clean:  ## remove the virtual environment and all caches; the data in .data stays
	rm -rf $(VENV) $(SDK_DIR)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp a level: as long as the requirements do not change, nothing is installed again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed: install one and run make with PYTHON=python3.12, say."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo "Python's venv module is missing: run 'apt-get install python3-venv' (as root) and try again."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.product: $(VENV)/bin/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.product requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# $(call apt,PACKAGE,WHY): installs a Debian package where that needs no password, else says so and goes on.
define apt
	if ! command -v apt-get >/dev/null; then echo "$(2): please install $(1)."; \
	elif [ "$$(id -u)" = 0 ]; then $(call apt_with,,$(1),$(2)); \
	elif sudo -n true 2>/dev/null; then $(call apt_with,sudo -n,$(1),$(2)); \
	else echo "$(2): please run 'apt-get install $(1)' as root."; fi
endef
apt_get = $(1) env DEBIAN_FRONTEND=noninteractive apt-get -qq
apt_with = echo "$(3): installing $(2)."; \
	{ $(apt_get) install -y $(2) || { $(apt_get) update && $(apt_get) install -y $(2); }; } >/dev/null 2>&1 \
	    || echo "$(3): 'apt-get install $(2)' failed, please see to it."

libcurl:
	@if [ -n "$$MONGO_URL" ] || grep -qs '^MONGO_URL=' .env || [ "$$(uname -s)" != Linux ]; then :; \
	elif PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q 'libcurl\.so\.4'; then :; \
	else $(call apt,libcurl4,The embedded MongoDB needs libcurl4); fi

chromium:
	@if { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then :; \
	else $(call apt,chromium,Browser tests need Chromium); fi

# OpenIM's SDKs for browsers, as the lock file names them; installed again only when it changes.
sdks:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory -s $(SDK_STAMP); \
	else echo "Tests of OpenIM's browser SDKs need npm: please install Node.js 18 or newer; without it they are skipped."; fi

$(SDK_STAMP): $(SDK_DIR)/package.json $(SDK_DIR)/package-lock.json
	@cd $(SDK_DIR) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error \
	    || echo "Tests of OpenIM's browser SDKs: 'npm ci' in $(SDK_DIR) failed, please see to it; without it they are skipped."
