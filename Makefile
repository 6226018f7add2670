PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/installed
TYPES := build/types

# The folders with modules to type-check beside the package.
SCRIPTS := $(patsubst %/,%,$(sort $(dir $(wildcard tests/*.py examples/*.py benchmarks/*.py))))

.PHONY: help demo test lint types format clean

help:
	@echo "make demo     run examples/demo.py"
	@echo "make test     lint, types, tests: all that a change must pass"
	@echo "make lint     ruff alone"
	@echo "make types    mypy alone"
	@echo "make format   let ruff fix and format the code"
	@echo "make clean    remove the environment, builds and caches"
	@echo "The environment is made in $(VENV) on first use; choose the interpreter with PYTHON=python3.12."

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# mypy follows neither package-dir nor an editable install, so it is shown the tree as it is installed:
# patterns, codegen and proofs inside sparsedsl.
types: $(STAMP)
	@rm -rf $(TYPES) && mkdir -p $(TYPES)/sparsedsl
	@ln -s "$(CURDIR)"/sparsedsl/* $(TYPES)/sparsedsl/
	@ln -s "$(CURDIR)"/patterns "$(CURDIR)"/codegen "$(CURDIR)"/proofs $(TYPES)/sparsedsl/
	@for folder in $(SCRIPTS); do ln -s "$(CURDIR)/$$folder" $(TYPES)/; done
	cd $(TYPES) && $(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache \
		$(addprefix -p ,sparsedsl $(SCRIPTS))

# Golden files are left alone: pytest --update-golden writes them.
format: $(STAMP)
	$(BIN)/ruff check --fix --exit-zero --extend-exclude tests/golden
	$(BIN)/ruff format

# -c picks the versions that we test, instead of the newest that the ranges allow.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "sparsedsl needs Python 3.11 or newer; $(PYTHON) is older, or missing." >&2; \
		echo "Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
