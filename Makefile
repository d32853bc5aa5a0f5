# `make sweep` and `make test` are all a newcomer needs: Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: sweep test prove lint docs figures dashboard full clean

sweep: $(VENV)/installed  ## the main job on the embedded default: figures in minutes on a CPU
	$(BIN)/python analysis/run_adamw_sweep_torch.py --preset quick

test: $(VENV)/installed  ## all tests that CI runs
	$(BIN)/python -m pytest -q -m "not slow and not network"

prove: $(VENV)/installed  ## all parity proofs with 1 and 2 threads and every vector instruction set
	$(BIN)/python scripts/prove.py

full: $(VENV)/installed  ## everything, the slow tests included
	$(BIN)/python -m pytest -q -m "not network"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

RUNS ?= runs
dashboard: $(VENV)/installed  ## all runs at hand in a browser; RUNS=folder chooses
	$(BIN)/python scripts/dashboard.py $(RUNS)

figures: $(VENV)/installed  ## all archived figures again, from their tables
	$(BIN)/python scripts/make_figures.py

docs: $(VENV)/installed  ## the documentation as a site under site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(VENV)/installed: pyproject.toml requirements-torch.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-torch.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
