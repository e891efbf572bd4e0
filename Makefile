# The one task runner. Every target does its own set-up: only python3 (3.11 or newer, with venv) and make are needed.
#   make demo     see it work          make test    the whole suite        make check   everything a machine can judge
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The first Python that is new enough; override with `make PYTHON=… target`.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --constraint constraints.txt
# Two test workers by default. A file is one worker's, as its tests may share nodes; those that start processes come last.
JOBS ?= 2
SEED ?= 1..20

.PHONY: help setup fast test test-compiled check format demo sim fuzz clean

help:
	@sed -n 's/^# \{0,1\}//; 1,2p' $(firstword $(MAKEFILE_LIST))
	@echo "  make setup | make fast | make test-compiled | make sim SEED=1..200 | make bench-NAME | make fuzz [FUZZ_SECONDS=60] | make format | make clean"

# One stamp for each set of packages, so that a demo does not wait for type checkers.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "atoll needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --upgrade pip
	$(PIP) --build-constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) --group test
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) --group check
	@touch $@

# The compiled part is optional: where a C compiler, Python's headers and OpenSSL's are not all there, Python does the same.
# It holds for exactly these sources; after a change the node goes without it until it is made again.
DEVICE := $(addprefix src/atoll/,base core device host overlay)
$(VENV)/.fast: $(VENV)/.run native/pyproject.toml native/setup.py $(wildcard native/src/*) src/atoll/__init__.py \
		$(shell find $(DEVICE) -name '*.py')
	@echo "making the compiled part, about a minute"
	@rm -rf $(VENV)/native && cp -r native $(VENV)/native && mkdir $(VENV)/native/atoll
	@cp -r src/atoll/__init__.py $(DEVICE) $(VENV)/native/atoll
	@if $(PIP) --build-constraint constraints.txt --force-reinstall --no-deps $(VENV)/native >$(VENV)/native.log 2>&1; then \
		echo "the compiled part is installed"; \
	else echo "without the compiled part (it needs cc, Python's headers and OpenSSL's; see $(VENV)/native.log)"; fi
	@touch $@

fast: $(VENV)/.fast

setup: $(VENV)/.check $(VENV)/.fast

test: $(VENV)/.test $(VENV)/.fast
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
	@if $(BIN)/python -c "import atoll_device" 2>/dev/null; then $(MAKE) --no-print-directory test-compiled; \
	else echo "without the compiled part, which has the device's tests once more"; test "$(CI)" != true; fi

# What tests the packet device in one process, with its modules compiled.
test-compiled: $(VENV)/.test $(VENV)/.fast
	$(BIN)/python -m pytest -p tests.compiled $(foreach room,unit property,$(wildcard $(foreach what,device overlay_session \
		session host,tests/$(room)/test_$(what)_*.py)))

check: $(VENV)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python tools/tidy.py
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pyright --warnings

format: $(VENV)/.check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: $(VENV)/.run
	$(BIN)/atoll demo $(DEMO_ARGS)

sim: $(VENV)/.run
	$(BIN)/python -m atoll.lab.sim --seed $(SEED) $(SIM_ARGS)

# Two benchmarks compare with libraries that nothing else needs. Those that cannot be had are left out, and the benchmark says so.
$(VENV)/.bench: $(VENV)/.test
	@if $(PIP) --group bench; then touch $@; else for package in dbos pykka river thespian xoscar; do \
		$(PIP) $$package || echo "cannot be installed, so nothing is compared with it: $$package"; done; fi

bench-health bench-env: $(VENV)/.bench

bench-%: $(VENV)/.test $(VENV)/.fast bench/%.py
	$(BIN)/python bench/$*.py $(BENCH_ARGS)

fuzz: FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt atheris
	$(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
