# make setup   .venv with everything in it        make serve   serve the bundled model on 127.0.0.1:8000
# make test    the whole test suite               make lint    ruff and mypy
# make bench   speed on this machine              make weights MODEL=gpt2   download a checkpoint
# make bench-peers   install what bench then compares with
# make test-gpu  the tests that need a CUDA device
# make test-cluster  the tests with several Ray nodes on this machine; installs Ray
# make playground   rebuild the page at / from its sources; needs Node 20.19 or newer

# The first of these that is Python 3.11 or 3.12.
SUITS := -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p $(SUITS) && echo $$p && break; done)
VENV ?= .venv
# From the command line, or the server's own variables. Not from an exported HOST, which shells set to the machine's name.
MODEL = $(or $(ZEROSHOT_MODEL),demo)
HOST = $(or $(ZEROSHOT_HOST),127.0.0.1)
PORT = $(or $(ZEROSHOT_PORT),8000)

# A machine without an NVIDIA GPU gets the CPU build of torch. Set to nothing to use pip's own index.
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# Test files that run side by side; 0: all in one process, one after the other. Two keep two cores busy for three quarters
# of the time: many wait for a clock, or for a process of theirs.
WORKERS ?= 3

# Set where every program is to leave no files, it would have Python compile torch anew at each start: seconds each time.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
# Python compiles what it imports, which is a small part of what is installed.
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# What serving takes, and what tests, lint and benchmarks take beside it.
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
CLUSTER := $(VENV)/.cluster
WEB := server/zeroshot/api/playground/web

.PHONY: setup serve test test-gpu test-cluster lint bench bench-peers weights playground clean

setup: $(DEV)

$(READY): pyproject.toml constraints.txt scripts/install_torch.py
	@test -n "$(PYTHON)" || { echo "Zeroshot needs Python 3.11 or 3.12; name it: make setup PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/install_torch.py --requirement "$(TORCH)" --cpu-index "$(TORCH_CPU_INDEX)"
	$(PIP_INSTALL) -e .
	touch $@

$(DEV): $(READY)
	$(PIP_INSTALL) -e '.[dev,training,clients,browser,otel]'
	touch $@

serve: $(READY)
	$(BIN)/zeroshot serve --model $(MODEL) --host $(HOST) --port $(PORT)

test: $(DEV)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

# By themselves: the other tests import Triton as an interpreter.
test-gpu: $(DEV)
	TRITON_INTERPRET=0 $(BIN)/python -m pytest tests/gpu

$(CLUSTER): $(DEV)
	$(PIP_INSTALL) -e '.[cluster]'
	touch $@

test-cluster: $(CLUSTER)
	$(BIN)/python -m pytest tests/cluster

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV)
	$(BIN)/python -m benchmarks.cpu

# llama.cpp is compiled for this machine: about ten minutes on two cores.
LLAMA_CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

bench-peers: $(DEV)
	CMAKE_ARGS="$(LLAMA_CMAKE_ARGS)" $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[peers]'

weights: $(READY)
	$(BIN)/zeroshot download $(MODEL)

playground: $(WEB)/node_modules/.package-lock.json
	cd $(WEB) && npm run --silent build

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --silent
	touch $@

clean:
	rm -rf $(VENV)
