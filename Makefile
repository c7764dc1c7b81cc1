# `make run` and `make test` do all the set-up on a machine with Python 3.11, 3.12 or 3.13 and make.

PYTHON ?= python3
VENV := .venv/bin

# The first of these that DocStral runs on
FIND_PYTHON = for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	"$$python" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" 2>/dev/null && break; \
	python=; done; \
	test "$$python" || { echo "DocStral needs Python 3.11, 3.12 or 3.13. None was found: install one, or name it with make PYTHON=/path/to/python" >&2; exit 1; }

.PHONY: help run test lint venv venv-dev export constraints wheel space test-deploy test-vllm fuzz bench video clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1\t/p' Makefile | expand -t 20

run: venv ## Set up, prepare the index and serve the app at http://127.0.0.1:7860
	@$(VENV)/python app.py

test: lint ## Set up, then check and test everything
	@echo "Testing with pytest: notebooks, modules, HTTP, browser, packaging (a few minutes) ..."
	@$(VENV)/python -m pytest

lint: venv-dev ## Set up, then check what can be checked without running it
	@echo "Checking that the modules, README.md and settings.ini are what the notebooks say (10 seconds) ..."
	@$(VENV)/python scripts/check_export.py
	@echo "Linting and checking the format with ruff (seconds) ..."
	@$(VENV)/ruff check --quiet
	@$(VENV)/ruff format --check --quiet || { echo "Not formatted: run make export" >&2; exit 1; }
	@echo "Checking types with mypy (up to a minute the first time) ..."
	@$(VENV)/mypy

export: venv-dev ## Format the notebooks; write the modules, README.md and settings.ini from them
	@$(VENV)/ruff format --quiet
	@$(VENV)/python scripts/export.py

constraints: venv-dev ## Resolve the newest versions again into constraints.txt (test them afterwards)
	@$(VENV)/python scripts/freeze.py

wheel: venv-dev ## Build dist/docstral-VERSION-py3-none-any.whl
	@$(VENV)/python -m hatchling build -t wheel

space: venv-dev ## Write build/space/, a Hugging Face Space that is ready to push
	@$(VENV)/python scripts/make_space.py

test-deploy: venv-dev ## Install the image's steps and the Space into empty environments, and use them (2 minutes)
	@echo "Running the steps of docker/Dockerfile without Docker (a minute) ..."
	@$(VENV)/python scripts/check_image.py
	@echo "Running the Space from its folder alone, in an empty environment (a minute) ..."
	@DOCSTRAL_TEST_SPACE=1 $(VENV)/python -m pytest tests/test_space.py

test-vllm: ## Test vLLM in process and as a server, with its CPU build and a tiny model (6 minutes)
	@$(FIND_PYTHON); "$$python" scripts/set_up_vllm.py
	@echo "Testing with vLLM: a tiny model in process, then a server (2 to 5 minutes) ..."
	@.venv-vllm/bin/python -m pytest -c tests/with_vllm/pytest.ini --rootdir tests/with_vllm tests/with_vllm

fuzz: venv-dev ## Look for inputs that break the parsers: FUZZ_SECONDS (30) for each of three
	@$(VENV)/python -c "import atheris" 2>/dev/null || $(VENV)/python -m pip install --quiet -c constraints.txt -e ".[fuzz]"
	@$(VENV)/python tests/fuzz/run.py

bench: venv-dev ## Run every benchmark in full, and write docs/BENCHMARKS.md from the results (half an hour)
	@$(VENV)/python -m benchmarks --write

video: venv-dev ## Film docs/demo.mp4: a real browser on the real app (wants chromium and ffmpeg; ten minutes)
	@$(VENV)/python scripts/make_video.py

clean: ## Remove the virtual environment and everything that was built
	@rm -rf .venv .venv-vllm dist build .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

venv:
	@$(FIND_PYTHON); "$$python" scripts/set_up.py

venv-dev:
	@$(FIND_PYTHON); "$$python" scripts/set_up.py dev
