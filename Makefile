# Two commands for a fresh machine: `make demo` and `make test`. Both create .venv first.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test soak lint bench bench-real bench-peers lock clean

$(READY): requirements.lock pyproject.toml
	@if [ -n "$(PYTHON)" ]; then "$(PYTHON)" -m venv .venv; \
	elif command -v uv >/dev/null; then uv venv --seed --python 3.12 .venv; \
	else echo "CPython 3.12, 3.13 or 3.14 is needed and none was found; install one, or uv" >&2; exit 1; fi
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/lstm-strategy demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The live node's proofs in full, about an hour; `make test` runs their short forms. Fails where one does.
soak: $(READY)
	$(BIN)/python tests/live/soak.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks

# Five coins out of sample, ten minutes and more; the market data are found in ../shared/data or $$LSTM_STRATEGY_TEST_DATA.
bench-real: $(READY)
	$(BIN)/python -m benchmarks.real

# NeuralForecast, Darts and FreqAI, each installed under build/peers.
bench-peers: $(READY)
	$(BIN)/python -m benchmarks.peers

lock:
	uv pip compile --universal --python-version 3.12 --all-extras --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --quiet -o requirements.lock pyproject.toml

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
