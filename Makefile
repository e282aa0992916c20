# make demo    replicate real events over three brokers, kill a leader with -9, prove that nothing was lost
# make test    everything that must pass: format, lint, types, unit tests, simulator, real processes
# make check   the quick part of make test: format, lint, types, unit tests
# make soak    real processes and real faults, for as long as you like
# make coverage    the unit tests with branch coverage, which may not fall below the figure in pyproject.toml
# make lock    renew requirements.lock, which says which packages the others install
# make test-latest, make test-oldest    the unit tests with the newest and the oldest packages pyproject.toml allows
# make wheels  a wheel with the compiled codec for each Python from 3.11 to 3.13 that is here, tried in a fresh environment
#
# Each sets up .venv by itself; a second run finds it ready. Needs Python 3.11 or newer and make, nothing else.
# Another interpreter: make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 100
SOAK_MINUTES ?= 30

# Where compiled modules are not kept, each process of a test compiles half a second's worth of them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check unit coverage sim process faults unharmed secured soak lock test-latest test-oldest wheels fmt clean
.DEFAULT_GOAL := test
SECURED := tests/process/controllers tests/process/routes tests/process/security

demo: $(VENV)/demo.done
	$(BIN)/minilog demo

# Faults wait more than they work. The simulator, which needs no clock, takes the time that they leave, and then
# the tests of processes that are harmed by nobody: those of pages, and those of routes, rights and controllers.
# What was installed a moment ago is on the disk first, so that no broker's fsync has to wait for it.
test: check
	sync
	$(MAKE) --jobs=3 faults unharmed secured

check: $(VENV)/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --numprocesses=2

unit: $(VENV)/dev.done
	$(BIN)/python -m pytest -q --numprocesses=2

coverage: $(VENV)/dev.done
	$(BIN)/python -m coverage run -m pytest -q
	$(BIN)/python -m coverage report --skip-covered --sort=cover

sim: $(VENV)/dev.done
	MINILOG_SIM_SEEDS=$(SEEDS) $(BIN)/python -m pytest -q tests/sim

process: $(VENV)/dev.done
	$(BIN)/python -m pytest -q tests/process

faults: $(VENV)/dev.done
	$(BIN)/python -m pytest -q tests/process/faults

unharmed: sim
	$(BIN)/python -m pytest -q tests/process $(addprefix --ignore=,tests/process/faults $(SECURED))

secured: sim
	$(BIN)/python -m pytest -q $(SECURED)

# Long: every fault again and again for SOAK_MINUTES, always with the same seeds, then a table and soak.json, which
# tests/process/campaign/report.py and plot.py make the figures of in the documents.
soak: $(VENV)/dev.done
	$(BIN)/python -m tests.process.campaign.soak --minutes $(SOAK_MINUTES)

lock: $(VENV)/venv.done
	@$(PIP) uv
	@$(BIN)/python .ci/lock.py

# In a copy of the tree with an environment of its own: the compiled codec is built with those versions, too.
test-latest test-oldest: test-%: $(VENV)/venv.done
	@rm -rf build/$* && mkdir -p build/$*/src
	@tar -cf - --exclude=./build --exclude=./$(VENV) --exclude=./.git --exclude='*.so' . | tar -xf - -C build/$*/src
	@$(BIN)/python -m venv build/$*/venv
	@build/$*/venv/bin/$(PIP_IN) uv
	@cd build/$*/src && ../venv/bin/python .ci/drift.py $*
	@cd build/$*/src && ../venv/bin/python -m pytest -q

# Into build/wheels. Other interpreters: make wheels PYTHONS='/path/to/python3.12 /path/to/python3.13'
wheels: $(VENV)/venv.done
	@$(BIN)/python .ci/wheels.py $(PYTHONS)

fmt: $(VENV)/dev.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The interpreter: the first that is new enough. `sh` finds it, so that no make dialect matters.
FIND_PYTHON = for candidate in "$(PYTHON)" python3.13 python3.12 python3.11 python3 python; do \
		[ -n "$$candidate" ] || continue; \
		if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
		then echo "$$candidate"; exit 0; fi; \
	done

$(VENV)/venv.done:
	@python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
		echo "minilog needs Python 3.11 or newer with its venv module, and found none." >&2; \
		echo "Install it (Debian: apt-get install python3 python3-venv), or say: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	echo "setting up $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV)
	@touch $@

# What the lock says and nothing else; the project itself is built with what is installed, not with what a registry has today.
PIP_IN = python -m pip install --quiet --disable-pip-version-check
PIP = $(BIN)/$(PIP_IN)
MARK = --- the tests need these as well ---

$(VENV)/base.done: $(VENV)/venv.done pyproject.toml requirements.lock
	@sed '/$(MARK)/,$$d' requirements.lock > $(VENV)/base.lock
	@$(PIP) --require-hashes --no-deps --requirement $(VENV)/base.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/demo.done: $(VENV)/base.done
	@touch $@

$(VENV)/dev.done: $(VENV)/base.done
	@$(PIP) --require-hashes --no-deps --requirement requirements.lock
	@touch $@
