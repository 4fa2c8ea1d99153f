# Sets up everything from Python 3.11+ and make alone. `make help` lists what it can do.
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help demo test lint bench fuzz clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
REPORT := runs/digits/report.html

# faiss-cpu and faiss-gpu install the same folder: one of the two, and the one this machine can use.
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo faiss-gpu || echo faiss-cpu)
OTHER_FAISS := $(if $(filter faiss-gpu,$(FAISS)),faiss-cpu,faiss-gpu)

# Folders count too: their time changes when a file is removed.
SOURCES := $(shell find slots backbones protocols -name __pycache__ -prune -o -print) $(wildcard README.md LICENSE)
CODE := slots backbones protocols $(wildcard cli.py) tests $(wildcard benchmarks)

help: ## what this file can do
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: $(VENV)/.installed ## install, learn scikit-learn's digits, ask about new ones, write a report and open it
	rm -rf runs/eight
	$(BIN)/slots fit --data digits --classes 0-7 --reach 0.8 --out runs/eight
	$(BIN)/slots update runs/eight --data digits --part test --budget 20 --dry-run
	$(BIN)/slots fit --data digits --out runs/digits
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then \
		xdg-open $(REPORT) >/dev/null 2>&1 & \
	elif [ "$$(uname)" = Darwin ] && [ -z "$$SSH_CONNECTION" ]; then open $(REPORT) || true; fi
	@echo "Report: $(REPORT)"

test: lint ## build the wheel, install it, check and test that
	SLOTS_TEST_WHEEL=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed ## style, types and the direction of imports, on the checkout's files
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed ## how to measure the claims
	@echo "Each script in benchmarks/ measures one claim; its --help says on what data and for how long:"
	@ls benchmarks/*.py 2>/dev/null | sed 's|^|  $(BIN)/python |; s|$$| --help|'
	@echo "The solvers and rivals that they compare with:  $(PIP) install -c constraints.txt '.[benchmarks]'"

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 0

fuzz: $(VENV)/.installed ## strangers' files by the thousand, kills, full disks and lost power, FUZZ_SECONDS=600 for each kind, FUZZ_SEED=0
	$(BIN)/python tests/support/fuzz_images.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	$(BIN)/python tests/support/fuzz_folders.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	@test "$$(uname)" = Linux && command -v cc >/dev/null || echo "No kills and no lost power: they need Linux and cc."
	@test "$$(uname)" = Linux && command -v cc >/dev/null || exit 0; set -x; \
		$(BIN)/python tests/support/kill_commands.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) && \
		$(BIN)/python tests/support/power_loss.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

clean: ## remove what was built, the environment included
	rm -rf $(VENV) dist build .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/.made: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "slots needs Python 3.11 or newer as '$(PYTHON)'. Install one, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "'$(PYTHON)' could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet -c constraints.txt hatchling
	@touch $@

# The wheel's name holds the version, so the newest one is found by pattern; old ones are removed first.
dist/.built: $(VENV)/.made pyproject.toml $(SOURCES)
	@rm -f dist/neural_slots-*.whl
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@touch $@

# All dependencies, only when what is asked for changed: this is the slow part (torch is gigabytes).
$(VENV)/.dependencies-$(FAISS): pyproject.toml constraints.txt | dist/.built
	@rm -f $(VENV)/.dependencies-*
	@$(PIP) uninstall --quiet --yes $(OTHER_FAISS) 2>/dev/null
	@echo "Installing the dependencies with $(FAISS); the first time takes some minutes."
	$(PIP) install --quiet -c constraints.txt "$$(echo dist/neural_slots-*.whl)[$(FAISS),test,peers,text,parquet,serve]"
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies-$(FAISS) dist/.built
	$(PIP) install --quiet --no-deps --force-reinstall dist/neural_slots-*.whl
	@touch $@
