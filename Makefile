# The habits of the project. `make demo` and `make test` need nothing but Python (3.11 or
# later), make and a package index; every target makes what it needs.
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --profile profiles/local --cores $(CORES)
CHECK_SLURM := PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s \
	-o python_files='check_*.py' -o addopts=--import-mode=importlib

.PHONY: demo real test test-slurm test-slurm-full test-full check format dag clean

demo: .venv/installed  ## the whole chain on the embedded simulated screen
	@# What waits for nothing runs beside the last training, which nothing else could do.
	$(SNAKEMAKE) all --prioritize results/encoders/mae/model.safetensors
	@echo "report: results/report/index.html"

real: .venv/installed  ## the whole chain on real images: make real DATA=folder of BBBC013
	@test -d "$(DATA)" || { echo "make real DATA=FOLDER, the folder of BBBC013"; exit 2; }
	$(SNAKEMAKE) --configfile configs/bbbc013.yaml --config data="$$(cd "$(DATA)" && pwd)" \
		--directory build/bbbc013 all
	@echo "report: build/bbbc013/results/report/index.html"

test: .venv/installed .venv/others/installed  ## every check of CI
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=10 \
		-n $(CORES) --dist loadfile

test-slurm: .venv/installed  ## the literal command on a SLURM of two nodes (root, Debian or Ubuntu)
	$(CHECK_SLURM) tests/slurm/check_demo.py

test-slurm-full: .venv/installed  ## and trainings that are requeued, lose a node, run out of time
	$(CHECK_SLURM) tests/slurm

test-full: .venv/installed  ## what takes longer: public layouts; ten kills of a training; three seeds, each correction switched off
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/public_screens.py --cores $(CORES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/restarts.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/planted_truth.py --cores $(CORES)

check: .venv/installed  ## style, types, words, lint of the rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check -l 96 Snakefile rules
	$(BIN)/codespell
	$(BIN)/snakemake --lint

format: .venv/installed  ## put code and rules into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt -l 96 Snakefile rules

dag: .venv/installed  ## draw the figure of the stages
	$(BIN)/python -m phenopipe.report.dag docs/dag.svg

clean:  ## remove results, logs and caches; the environment stays
	rm -rf results logs build .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Tools that tests open our exports with, and an S3 server; in an environment of their own.
.venv/others/installed: tests/others.txt | .venv/installed
	$(PYTHON) -m venv .venv/others
	.venv/others/bin/python -m pip install --quiet -r tests/others.txt
	touch $@
