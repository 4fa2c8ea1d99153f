# Sets up everything from Python 3.11+ and make alone. `make help` lists what it can do.
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help demo test test-slow lint dist docs notebooks gallery bench explanations fuzz fuzz-api kills label-studio interfaces audit sbom hashes test-minimum clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
REPORT := runs/digits/report.html

# Only files whose digests the repository knows are installed. `make HASHES=` goes by versions alone: for an index that
# holds builds of its own.
HASHES ?= yes
PINS := $(if $(HASHES),--require-hashes -c .github/hashes.txt,-c constraints.txt)

# What looks after the packages stays out of their environment.
TOOLS := .tools
UV := UV_PYTHON_DOWNLOADS=never $(TOOLS)/bin/uv
SBOM := dist/neural-slots.cdx.json

# faiss-cpu and faiss-gpu install the same folder: one of the two, and the one this machine can use.
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo faiss-gpu || echo faiss-cpu)
OTHER_FAISS := $(if $(filter faiss-gpu,$(FAISS)),faiss-cpu,faiss-gpu)

# Folders count too: their time changes when a file is removed.
SOURCES := $(shell find slots backbones protocols -name __pycache__ -prune -o -print) $(wildcard README.md LICENSE)
CODE := slots backbones protocols $(wildcard cli.py) tests $(wildcard benchmarks) $(wildcard examples) $(wildcard docs/theme)

help: ## what this file can do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

demo: $(VENV)/.installed ## install, learn scikit-learn's digits, ask about new ones, write a report and open it
	rm -rf runs/eight
	$(BIN)/slots fit --data digits --classes 0-7 --reach 0.8 --out runs/eight
	$(BIN)/slots update runs/eight --data digits --part test --budget 20 --dry-run
	$(BIN)/slots fit --data digits --out runs/digits
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then \
		xdg-open $(REPORT) >/dev/null 2>&1 & \
	elif [ "$$(uname)" = Darwin ] && [ -z "$$SSH_CONNECTION" ]; then open $(REPORT) || true; fi
	@echo "Report: $(REPORT)"

# One more than there are processors: a test that waits for a process or a server leaves one idle.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

# One thread a process: several processes of several threads wait for each other on the same processors. Compiled tests
# are kept even where the environment says no: to rewrite their assertions takes each worker a quarter of a minute.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 SLOTS_TEST_WHEEL=1 $(BIN)/pytest --durations 25 --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Style and types are checked beside the tests, and what is wrong with them is said last.
test: $(VENV)/.installed ## build the wheel, install it, check and test that; within 15 minutes on two cores
	@$(MAKE) --no-print-directory lint > $(VENV)/lint.log 2>&1 & lint=$$!; \
	$(PYTEST) -m "not slow"; \
	tests=$$?; wait $$lint; lint=$$?; cat $(VENV)/lint.log; [ $$tests = 0 ] && [ $$lint = 0 ]

test-slow: $(VENV)/.installed ## the tests that `make test` leaves out: kills, floods, a browser on every page, protocols on data
	$(PYTEST) -m slow

lint: $(VENV)/.installed ## style, types and the direction of imports, on the checkout's files
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

dist: dist/.built ## the wheel and the source archive, in dist/
	@rm -f dist/neural_slots-*.tar.gz
	$(BIN)/hatchling build --target sdist --directory dist

# The site's tools read sources: an environment of their own, of 200 MB, without the packages and without torch.
DOCS := .docs

docs: $(DOCS)/.installed ## the site, in site/index.html; no network, and no warning
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet
	@echo "Open site/index.html"

$(DOCS)/.installed: pyproject.toml constraints.txt .github/hashes.txt
	$(PYTHON) -m venv --clear $(DOCS)
	@sed -n '/^pip==/,/[^\\]$$/p' .github/hashes.txt > $(DOCS)/pip.txt
	$(DOCS)/bin/python -m pip --disable-pip-version-check install --quiet $(if $(HASHES),--require-hashes -r $(DOCS)/pip.txt,-c constraints.txt --upgrade pip)
	$(DOCS)/bin/python docs/theme/asked.py > $(DOCS)/asked.txt
	$(DOCS)/bin/python -m pip --disable-pip-version-check install --quiet $(PINS) -r $(DOCS)/asked.txt
	@touch $@

notebooks: ## the examples as notebooks, in examples/notebooks
	$(PYTHON) docs/theme/example_cells.py examples/notebooks

gallery: $(VENV)/.installed ## run every example, and renew the pictures of the gallery
	$(BIN)/python docs/theme/pictures.py

bench: $(VENV)/.installed ## how to measure the claims
	@echo "Each script in benchmarks/ measures one claim; its --help says on what data and for how long:"
	@ls benchmarks/*.py 2>/dev/null | sed 's|^|  $(BIN)/python |; s|$$| --help|'
	@echo "The solvers and rivals that they compare with:  $(PIP) install -c constraints.txt '.[benchmarks]'"

explanations: $(VENV)/.installed ## DiffROAR and max-sensitivity of six networks, captum's methods beside ours: two hours on two cores
	$(BIN)/python benchmarks/explanation_seeds.py --cache .nets --workers 2 --output benchmarks/results/explanation_seeds.json

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 0

fuzz: $(VENV)/.installed ## strangers' files by the thousand, kills, full disks and lost power, FUZZ_SECONDS=600 for each kind, FUZZ_SEED=0
	$(BIN)/python tests/support/fuzz_images.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	$(BIN)/python tests/support/fuzz_folders.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	@test "$$(uname)" = Linux && command -v cc >/dev/null || echo "No kills and no lost power: they need Linux and cc."
	@test "$$(uname)" = Linux && command -v cc >/dev/null || exit 0; set -x; \
		$(BIN)/python tests/support/kill_commands.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) && \
		$(BIN)/python tests/support/power_loss.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

KILLS ?= 10000

kills: $(VENV)/.installed ## the whole service killed under load, KILLS=10000 times, FUZZ_SEED=0; nothing may be lost or doubled
	$(BIN)/python benchmarks/service_kills.py --kills $(KILLS) --seed $(FUZZ_SEED)

# Of an environment of its own: a gigabyte, of which only Label Studio itself is pinned.
LABEL_STUDIO := .label-studio

label-studio: $(VENV)/.installed $(LABEL_STUDIO)/.installed ## Label Studio itself with the service as its ML backend: predictions, labels, training
	$(BIN)/python benchmarks/label_studio.py $(LABEL_STUDIO)/bin/label-studio

$(LABEL_STUDIO)/.installed:
	$(PYTHON) -m venv --clear $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/python -m pip --disable-pip-version-check install --quiet label-studio==1.23.2
	@touch $@

# Of an environment of its own, which adds 500 MB to that of the tests: Avalanche and MLflow bring a hundred packages.
INTERFACES := .interfaces
SITE := import sysconfig; print(sysconfig.get_path("purelib"))

interfaces: $(VENV)/.installed $(INTERFACES)/.installed ## Avalanche's benchmarks on slots, MLflow's flavour, and types beside those packages
	OMP_NUM_THREADS=1 $(INTERFACES)/bin/python -m pytest tests/runs/interfaces tests/runs/app/test_exporting.py
	$(BIN)/mypy --python-executable $(INTERFACES)/bin/python --cache-dir .mypy_cache/interfaces

$(INTERFACES)/.installed: constraints.txt | $(VENV)/.installed
	$(PYTHON) -m venv --clear $(INTERFACES)
	$(BIN)/python -c '$(SITE)' > "$$($(INTERFACES)/bin/python -c '$(SITE)')/tests.pth"
	$(INTERFACES)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt avalanche-lib==0.6.0 mlflow-skinny
	@touch $@

audit: $(VENV)/.installed $(TOOLS)/.installed ## is what is installed what the pins say, whole, under known licences, without known weaknesses?
	$(BIN)/python tests/support/audit.py --advisories $(TOOLS)/bin/pip-audit

sbom: $(VENV)/.installed $(TOOLS)/.installed ## a bill of materials of what is installed: CycloneDX, in dist/
	$(BIN)/python tests/support/bill.py --wheel dist/neural_slots-*.whl --out $(SBOM)
	$(TOOLS)/bin/python tests/support/bill.py --validate $(SBOM)

hashes: $(TOOLS)/.installed ## the digests of all pins, as the index publishes them, after a change of constraints.txt
	$(TOOLS)/bin/python tests/support/pins.py --write $(TOOLS)/bin/uv

# Python 3.11 is the lowest, too. The tests are those of what a model answers, of the command, and of what the extras bring.
MINIMUM ?= .minimum
LOWEST_TESTS := tests/head tests/test_cli.py tests/nets/text tests/runs/interfaces tests/runs/onnx_graph tests/runs/app/test_exporting.py tests/service/test_quick.py tests/service/test_labels.py tests/service/api/test_slots.py
LOWEST := --python 3.11 $(foreach extra,faiss-cpu text parquet serve s3 postgres hub mlflow test peers,--extra $(extra))

test-minimum: dist/.built $(TOOLS)/.installed ## test with the lowest versions that pyproject.toml allows, in MINIMUM=.minimum
	$(UV) venv --quiet --clear --python 3.11 $(MINIMUM)
	$(UV) pip compile --quiet pyproject.toml --resolution lowest-direct $(LOWEST) -o $(MINIMUM)/asked.txt
	$(TOOLS)/bin/python tests/support/minimum.py $(MINIMUM)/asked.txt
	$(UV) pip install --quiet --compile-bytecode --python $(MINIMUM) -r $(MINIMUM)/asked.txt
	$(UV) pip install --quiet --no-deps --python $(MINIMUM) dist/neural_slots-*.whl
	$(MINIMUM)/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(LOWEST_TESTS)

FUZZ_EXAMPLES ?= 500

fuzz-api: $(VENV)/.installed ## every operation of the service with made-up requests, FUZZ_EXAMPLES=500 for each
	SLOTS_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest tests/service/api/test_every_operation.py

clean: ## remove what was built, the environments included
	rm -rf $(VENV) $(TOOLS) $(LABEL_STUDIO) $(INTERFACES) $(DOCS) .minimum site dist build .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/.made: constraints.txt .github/hashes.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "slots needs Python 3.11 or newer as '$(PYTHON)'. Install one, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "'$(PYTHON)' could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@sed -n '/^pip==/,/[^\\]$$/p' .github/hashes.txt > $(VENV)/.pip.txt
	$(PIP) install --quiet $(if $(HASHES),--require-hashes -r $(VENV)/.pip.txt,-c constraints.txt --upgrade pip)
	$(PIP) install --quiet $(PINS) hatchling
	@touch $@

$(TOOLS)/.installed: .github/tools.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet $(if $(HASHES),--require-hashes) -r $<
	@touch $@

# The wheel's name holds the version, so the newest one is found by pattern; old ones are removed first.
dist/.built: $(VENV)/.made pyproject.toml $(SOURCES)
	@rm -f dist/neural_slots-*.whl
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@touch $@

# All dependencies, only when what is asked for changed: this is the slow part (torch is gigabytes).
$(VENV)/.dependencies-$(FAISS): pyproject.toml constraints.txt .github/hashes.txt | dist/.built
	@rm -f $(VENV)/.dependencies-*
	@$(PIP) uninstall --quiet --yes $(OTHER_FAISS) 2>/dev/null
	@echo "Installing the dependencies with $(FAISS); the first time takes some minutes."
	@$(if $(HASHES),$(BIN)/python tests/support/pins.py)
	@printf './%s[%s] %s\n' dist/neural_slots-*.whl "$(FAISS),test,peers,text,parquet,serve,postgres,s3" \
		"$$(test -z "$(HASHES)" || $(PIP) hash dist/neural_slots-*.whl | tail -1)" > $(VENV)/.asked.txt
	$(PIP) install --quiet $(PINS) -r $(VENV)/.asked.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies-$(FAISS) dist/.built
	$(PIP) install --quiet --no-deps --force-reinstall dist/neural_slots-*.whl
	@touch $@
