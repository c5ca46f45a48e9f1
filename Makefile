# Everything runs in .venv, which the first target that needs it sets up. Exact versions are in constraints.txt.
#   make book PYTHON=python3.12          another Python (3.11 to 3.13)
#   make test WORKERS=1                   one chapter or test file after the other, with little memory
#   make book TORCH_INDEX=<address>      take PyTorch from another index, such as the one for CPU-only wheels

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
PORT ?= 8000
# How many chapters are executed, or files tested, at a time, each with one thread (spf_lite/cli/threads.py says why).
WORKERS ?= 2
export WORKERS
# Some machines tell Python to keep no compiled files. Then every kernel would compile all libraries anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install book test lint serve clean

help: ## show this list
	@echo "Targets:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP) ## set up .venv (the other targets do this by themselves)

# --no-compile: Python compiles what is imported, when it is. Most of the 16,000 files never are.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14))' || { \
	  echo "SPF-Lite needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is not one of them." >&2; \
	  echo "Name another one, for example: make $(or $(MAKECMDGOALS),book) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) install --constraint constraints.txt --index-url $(TORCH_INDEX) --no-compile torch)
	$(PIP) install --no-compile --constraint constraints.txt --editable '.[book,test]'
	@touch $@

book: $(STAMP) ## execute and render the book: _build/html/index.html
	$(BIN)/jupyter-book build book/ --config _config.yml --path-output . -W --keep-going
	@echo "Open _build/html/index.html in a browser, or run 'make serve'."

test: $(STAMP) ## lint, type checks, every chapter and every test
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env book tests

lint: $(STAMP) ## ruff, mypy, and the layers of the library
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: book ## render the book and serve it on this machine
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## remove what was built; .venv stays
	rm -rf _build build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
