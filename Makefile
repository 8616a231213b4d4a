# Two commands set everything up and run: `make demo` and `make test`. The environment is made once, in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check audit slow faults faults-quick app clean help

help:
	@echo "make demo    panorama to geometry on the sample picture, offline"
	@echo "make app     a page in the browser: upload a panorama, walk into it"
	@echo "make test    all fast tests        make slow   the slow ones as well"
	@echo "make faults  everything that can go wrong, at full size (hours)      make faults-quick   a small part"
	@echo "make check   lint and types        make audit  known vulnerabilities of the packages"
	@echo "make clean   remove .venv and outputs"

# Installed again only when pyproject.toml has changed since.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 demo" if v < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python core_exp_runner.py

app: .venv/installed
	$(BIN)/python core_exp_runner.py mode=demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2

slow: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 -m 'slow and not gpu'

faults: .venv/installed-dev
	rm -rf outputs/faults
	$(BIN)/python -m pytest -n 2 --full --timeout 7200 -m 'not gpu' tests/faults
	$(BIN)/python -m tests.faults.table

faults-quick: .venv/installed-dev
	rm -rf outputs/faults
	$(BIN)/python -m pytest -n 2 -m 'not gpu' tests/faults
	$(BIN)/python -m tests.faults.table

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of the packages; passes where no index can be asked.
audit: .venv/installed-dev
	$(BIN)/python .ci/audit.py

clean:
	rm -rf .venv outputs build *.egg-info
