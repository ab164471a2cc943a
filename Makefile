# phasezoo: `make demo` and `make test` work in a fresh clone, without any preparation.
# Variables: VENV (where to install), PYTHON (which one), WORKERS, PIP_FLAGS, PYTEST_FLAGS,
# TEST_PROCESSES.

SHELL := /bin/bash
VENV ?= .venv
ZOO := $(VENV)/bin/zoo
PYTHON_BIN := $(VENV)/bin/python
STORE := datasets_out/quickstart.zarr
PICTURE := datasets_out/quickstart.png
WORKERS ?=
PYTEST_FLAGS ?=
TEST_PROCESSES ?= 2
SLURM_STORE := datasets_out/quickstart-slurm.zarr
# a whole SLURM for one machine, accounting included; slurm/devcluster starts it
SLURM_PACKAGES := slurmctld slurmd slurm-client munge slurmdbd mariadb-server

.DEFAULT_GOAL := help
.PHONY: help demo demo-slurm test lint format docs bench clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp is the record of a finished installation: a second call has nothing to do.
$(VENV)/.installed-plot: pyproject.toml constraints.txt
	@tools/setup_venv.sh $(VENV) plot
	@touch $@

$(VENV)/.installed-slurm: pyproject.toml constraints.txt
	@tools/setup_venv.sh $(VENV) plot,slurm
	@touch $@ $(VENV)/.installed-plot

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@tools/setup_venv.sh $(VENV) test,lint
	@touch $@ $(VENV)/.installed-plot

demo: $(VENV)/.installed-plot ## train a real zoo of digit classifiers, print a table, draw a picture
	$(ZOO) run sweeps/quickstart.toml --out $(STORE) $(if $(WORKERS),--workers $(WORKERS))
	@echo
	$(ZOO) report $(STORE) --by width,norm --plot $(PICTURE)
	@echo
	$(ZOO) query $(STORE) "test_accuracy > 0.97 and epoch == -1" \
		--columns run_id,width,batch_size,norm,test_accuracy --sort=-test_accuracy --limit 5

demo-slurm: $(VENV)/.installed-slurm ## the same zoo through a real SLURM on this machine (needs root)
	@tools/system_packages.sh $(SLURM_PACKAGES)
	slurm/devcluster up
	@eval "$$(slurm/devcluster env)"; \
	trap 'slurm/devcluster down' EXIT; set -e; \
	run() { echo "$$*"; "$$@"; }; \
	run $(ZOO) doctor devcluster || true; \
	run $(ZOO) submit sweeps/quickstart.toml --out $(SLURM_STORE) --cluster devcluster; \
	run $(ZOO) status $(SLURM_STORE) --watch --every 10; \
	run $(ZOO) report $(SLURM_STORE) --by width,norm

test: $(VENV)/.installed-dev ## set up and run every test
	@tools/system_packages.sh dataset-fashion-mnist g++ python3-dev $(SLURM_PACKAGES)
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(PYTHON_BIN) -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_FLAGS)

lint: $(VENV)/.installed-dev ## style (ruff) and types (mypy --strict)
	$(PYTHON_BIN) -m ruff check .
	$(PYTHON_BIN) -m ruff format --check .
	$(PYTHON_BIN) -m mypy

format: $(VENV)/.installed-dev ## let ruff mend style
	$(PYTHON_BIN) -m ruff check --fix .
	$(PYTHON_BIN) -m ruff format .

docs: $(VENV)/.installed-dev ## build the manual and the API reference into docs/_build/html
	$(PYTHON_BIN) -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.installed-plot ## compare training speed with plain PyTorch and torch.func
	OMP_NUM_THREADS=1 $(PYTHON_BIN) benchmarks/bench_train.py

clean: ## remove caches and the demo's output
	rm -rf $(STORE) $(PICTURE) $(SLURM_STORE) $(SLURM_STORE).slurm build dist docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find zoo tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove the virtual environment
	rm -rf $(VENV) phasezoo.egg-info
