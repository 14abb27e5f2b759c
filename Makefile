# Everything runs in .venv, which `make setup` makes; the other targets make it when it is missing.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := models engines server trainer benchmarks

.PHONY: setup serve test check ddo format clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "ddo-serve needs Python 3.11 or newer; say which: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@# Tests compare with it; the torchvision that it asks for would have to be of torch's own build.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps torch-fidelity==0.4.0
	touch $@

serve: setup
	$(BIN)/python -m server

# Two processes, each with one thread: a file of tests stays in one of them.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

ddo: setup data/emoji256.npz
	$(BIN)/python -m trainer ddo trainer/configs/emoji-edm-ddo.toml --out runs/emoji-edm-ddo

data/emoji256.npz: | setup
	$(BIN)/python -m trainer data emoji $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES))

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
