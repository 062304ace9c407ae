# Needs Python 3.11 or later and make. PYTHON=python3.12 make setup takes another interpreter.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test wheel bench

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(INSTALLED) ## Make .venv with weightfold and everything it can use

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

# Fixed before it was first run: change it and the comparison is another one.
demo: setup ## Compact against expanded over 10 seeds on scikit-learn's digits; leaves demo/index.html
	$(BIN)/weightfold compare --model digitnet --data digits --recipe digits \
	    --variants compact ck,rate=4 cl,rate=4 --seeds 10 --jobs 2 --folder demo

test: setup ## Lint, format, imports, types, tests: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/python -m pytest -n 2 --dist loadfile

# A real empty environment with the core dependencies only, so that a missing one shows. What
# setup has downloaded comes from pip's cache.
wheel: setup ## Build the wheel, install it in an empty environment and use it there
	rm -rf build/wheel build/empty
	$(BIN)/python -m build --wheel --outdir build/wheel
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install build/wheel/*.whl
	cd build && empty/bin/weightfold --help
	cd build && empty/bin/python -W error -c "import torch, weightfold as wf; \
	    net = wf.expand(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5)), rate=2, seed=0); \
	    x = torch.ones(1, 3, 9, 9); torch.testing.assert_close(net.deploy()(x), net(x)); \
	    net.summary()"
	rm -rf build/empty

bench: setup ## Time training steps: compact, folded on the fly, chain of layers
	$(BIN)/weightfold bench expand
