# Everything a newcomer needs: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN    := .venv/bin
BASE   := import os, sys; print(os.path.realpath(sys._base_executable))
CODEC  := Cargo.toml Cargo.lock $(shell find rust_codec -name '*.rs' -o -name '*.toml')
SRC    := rust_codec/headrace gateway/headrace sync/headrace registry/headrace loadtest/headrace
ONCE   ?=
ENGINES ?= embedded
ARGUMENTS ?=
.PHONY: help install run test static codec generator bench bench-embedded bench-real bench-peers bench-faults stress clean always

help:
	@grep -E '^## ' Makefile | sed 's/^## //'

## make install   the environment in .venv, with the embedded engines (PYTHON=python3.13: of that interpreter)
install: .venv/embedded

## make run       the flight example end to end, served on 127.0.0.1:6566 until Ctrl-C (ONCE=1: one read of each kind, then exit; ENGINES=real: over Cassandra, Kafka and Valkey)
run: .venv/$(if $(filter real,$(ENGINES)),dev,embedded)
	@$(BIN)/python registry/examples/flights/run.py $(if $(ONCE),--once) --engines $(ENGINES)

## make test      every test, Rust and Python
test: .venv/dev generator
	@cargo test --quiet --locked --workspace --exclude headrace-codec-python
	@$(BIN)/python -m pytest -q

## make static    format, lint, types, import arrows, instruction counts
static: .venv/dev
	@cargo fmt --all --check
	@cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy $(SRC) tests docs/reference.py
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/codespell
	@$(BIN)/python -m headrace.loadtest.instructions
	@$(BIN)/python -m headrace.loadtest.process_instructions

## make stress    the same promises at big sizes: a million rows, long runs
stress: .venv/dev
	@$(BIN)/python -m pytest -q -m stress

## make bench     CPU per request, per record, per command; raw results in loadtest/results (ENGINES=real: over Cassandra, Kafka and Valkey)
bench: .venv/dev bench-$(ENGINES)
	@$(BIN)/python -m headrace.loadtest.pages

bench-embedded: .venv/dev
	@$(BIN)/python -m headrace.loadtest.codec_bench --build release --out loadtest/results/codec.json
	@$(BIN)/python -m headrace.loadtest.transcode_bench
	@$(BIN)/python -m headrace.loadtest.bench
	@$(BIN)/python -m headrace.loadtest.client_bench
	@$(BIN)/python -m headrace.loadtest.writer_bench --rows 500000 --out loadtest/results/writer.json
	@$(BIN)/python -m headrace.loadtest.pipeline_bench --rows 500000 --out loadtest/results/pipeline.json

bench-real: .venv/dev
	@$(BIN)/python -m headrace.loadtest.real_bench

## make bench-faults  latency and failures while the cache or the store fails, and under overload; raw results likewise
bench-faults: .venv/dev generator
	@$(BIN)/python -m headrace.loadtest.fault_bench
	@$(BIN)/python -m headrace.loadtest.pages

## make bench-peers   ours against Feast, FastAPI and Litestar on the same rows: CPU, latency, plots (ARGUMENTS=--quick)
bench-peers: .venv/dev generator
	@$(BIN)/python -m headrace.loadtest.peers $(ARGUMENTS)
	@$(BIN)/python -m headrace.loadtest.pages

## make bench-scaling  a read by groups, rows, fields and keys; workers' balance, memory and catalog swaps
bench-scaling: .venv/dev generator
	@$(BIN)/python -m headrace.loadtest.scaling_bench
	@$(BIN)/python -m headrace.loadtest.workers_bench
	@$(BIN)/python -m headrace.loadtest.pages

## make generator  the load generator that the benches and their tests start
generator:
	@cargo build --quiet --locked --release -p headrace-generator

## make codec     rebuild the Rust codec in place, quickly (for developers)
codec: .venv/dev
	@PYO3_BUILD_EXTENSION_MODULE=1 cargo build --quiet --locked --profile quick -p headrace-codec-python
	@cp "$${CARGO_TARGET_DIR:-target}/quick/lib_codec.so" rust_codec/headrace/codec/_codec.abi3.so.new
	@mv rust_codec/headrace/codec/_codec.abi3.so.new rust_codec/headrace/codec/_codec.abi3.so

## make clean     remove the environment and build outputs
clean:
	@rm -rf .venv target rust_codec/headrace/codec/*.so

.venv/%: pyproject.toml constraints.txt $(CODEC) .venv/interpreter
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	@touch $@

# Made anew where PYTHON is given and is another interpreter than the environment's.
.venv/interpreter: always
	@$(if $(filter file,$(origin PYTHON)),,given="$$($(PYTHON) -c '$(BASE)')" && \
	  { test "$$given" = "$$(test ! -x $(BIN)/python || $(BIN)/python -c '$(BASE)')" || rm -rf .venv; })
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -f $@ || $(BIN)/python -VV > $@

always:
