# make setup   .venv with everything in it        make serve   serve the bundled model on 127.0.0.1:8000
# make test    the whole test suite               make lint    ruff and mypy
# make bench   speed on this machine              make weights MODEL=gpt2   download a checkpoint

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 -c 'import venv' 2>/dev/null && echo python3.12 || echo python3)
VENV ?= .venv
MODEL ?= demo
HOST ?= 127.0.0.1
PORT ?= 8000

# A machine without an NVIDIA GPU gets the CPU build of torch. Set to nothing to use pip's own index.
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup serve test lint bench weights clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt scripts/install_torch.py
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "Zeroshot needs Python 3.11 or 3.12: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/install_torch.py --requirement "$(TORCH)" --cpu-index "$(TORCH_CPU_INDEX)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,training]'
	touch $@

serve: $(READY)
	$(BIN)/zeroshot serve --model $(MODEL) --host $(HOST) --port $(PORT)

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.cpu

weights: $(READY)
	$(BIN)/zeroshot download $(MODEL)

clean:
	rm -rf $(VENV)
