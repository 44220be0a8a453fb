# make demo: install everything, then train, evaluate and sample on the embedded task.
# make test: install everything, then run all tests.
# make site: install everything, then make build/site of the READMEs, the notebooks and the docstrings.
# Needed: make, Python 3.11 or 3.12 with venv, a network for the first installation, and for learn2learn a C compiler.

# The first of these that is 3.11 or 3.12 is taken; 3.11 first, as most tests ran there. To choose: make PYTHON=...
PYTHON ?= python3.11 python3.12 python3 python

VENV := .venv
PY := $(VENV)/bin/python
NOT_BUILT := $(VENV)/learn2learn-not-built
LOG := $(VENV)/learn2learn.log

SUPPORTED := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
TORCH := from importlib.metadata import version; print("torch==" + version("torch"))
# uv adds packages to the environment that pip made. It is given the installed torch as a constraint, local label (+cpu,
# say) included, so that it cannot put another in its place. copy: its cache may lie on another file system.
UV := UV_LINK_MODE=copy $(VENV)/bin/uv pip install --python $(PY) -r pyproject.toml -c constraints.txt -c $(VENV)/torch.txt
TORCH_KEPT = @$(PY) -c '$(TORCH)' | diff $(VENV)/torch.txt - || \
	{ echo "make: installing learn2learn and torchmeta replaced torch (above: before and after); please report this, then run 'make clean'." >&2; exit 1; }

.DELETE_ON_ERROR:
.PHONY: help setup demo test site learn2learn clean

help:
	@echo "make demo         set up, then train, evaluate and sample on the embedded task"
	@echo "make test         set up, then run all tests"
	@echo "make site         set up, then make the pages and the reference of all names: build/site/index.html"
	@echo "make setup        make .venv and install everything into it"
	@echo "make learn2learn  try again to build learn2learn, where a compiler was missing"
	@echo "make clean        remove .venv and caches; runs/ stays"

demo: setup
	$(PY) -m experiments.demo

# Two processes of one thread each: most tests are many small steps.
test: setup
	$(PY) -m pytest -n 2 --dist worksteal

site: setup
	$(PY) .site/build.py
	@echo "build/site/index.html"

setup: $(VENV)/.learn2learn
	@[ ! -e $(NOT_BUILT) ] || cat $(NOT_BUILT)

$(VENV)/.created:
	@if [ -e $(PY) ]; then \
		$(PY) -c '$(SUPPORTED)' || { echo "make: .venv holds no Python 3.11 or 3.12; run 'make clean', then again." >&2; exit 1; }; \
	fi; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
		found=; \
		for python in $(PYTHON); do \
			if $$python -c '$(SUPPORTED)' >/dev/null 2>&1; then found=$$python; break; fi; \
		done; \
		[ -n "$$found" ] || { echo "make: Python 3.11 or 3.12 is needed, and none of these is one: $(PYTHON). Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		$$found -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $$found has no venv module; install it (Debian and Ubuntu: apt install python3-venv), or name another Python: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		echo "Making .venv with $$found"; \
		$$found -m venv $(VENV); \
	fi
	@touch $@

$(VENV)/.core: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing metadensity. torch as published for Linux takes about 3 GB; a CPU build that pip is told of takes 0.2 GB."
	$(PY) -m pip install -c constraints.txt -e '.[dev]'
	@$(PY) -c '$(TORCH)' > $(VENV)/torch.txt
	@touch $@

$(VENV)/.torchmeta: $(VENV)/.core
	$(UV) --extra torchmeta
	$(TORCH_KEPT)
	@touch $@

# Only a failed build is passed over; any other failure (no network, say) stops make.
$(VENV)/.learn2learn: $(VENV)/.torchmeta
	@rm -f $(NOT_BUILT)
	@echo "Installing learn2learn (building its C sources takes about 20 s)"
	@if $(UV) --extra learn2learn > $(LOG) 2>&1; then \
		cat $(LOG); \
	elif grep -q "build backend returned an error" $(LOG); then \
		echo "make: learn2learn is left out, as its C sources could not be built (see $(LOG)); all else works. With a C compiler and Python's headers installed (Debian and Ubuntu: apt install build-essential python3-dev), run 'make learn2learn'." > $(NOT_BUILT); \
	else \
		cat $(LOG) >&2; exit 1; \
	fi
	$(TORCH_KEPT)
	@touch $@

learn2learn:
	@rm -f $(VENV)/.learn2learn
	@$(MAKE) --no-print-directory setup

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
