# `make demo` and `make test` work on a fresh clone: they need Python >= 3.11 and make, and create .venv once.
# A machine without a GPU can fetch the small PyTorch:
#   make demo PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
PYTHON ?= python3
PIP_ARGS ?=
DEMO_ARGS ?=
TEST_ARGS ?=
# Test files that run side by side.
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/python -m rayjobs.pipeline --dataset sample --recipe demo --storage demo_out --run demo $(DEMO_ARGS)

test: $(STAMP)
	@# Exit code 5: no such tests among TEST_ARGS. Slow ones start Rays and servers, which need the machine to themselves.
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m 'not slow' $(TEST_ARGS) || [ $$? = 5 ]
	$(BIN)/python -m pytest -m slow $(TEST_ARGS) || [ $$? = 5 ]

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf demo_out build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V 2>&1) but Python >= 3.11 is needed; run: make PYTHON=python3.11" >&2; exit 2; }
	@echo "Installing into $(VENV); this takes a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[mat,test,lint]'
	@touch $@
