# What one types here. `make demo` and `make test` install what they need (with apt and pip) and say so.

SHELL := /bin/bash
# Where rustup puts cargo, for a shell that has not heard of it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.PHONY: help build demo test test-images test-stack image deb manifests monitoring drivers soak bench bench-micro bench-callgrind compat compat-record differences docs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## pgweir itself, in target/release
	cargo build --release --locked

demo: ## PostgreSQL, pgweir in front, a short pgbench, SHOW POOLS; leaves nothing behind
	@tests/needs.sh demo
	cargo build --release --locked
	@tests/demo.sh

test: ## everything: style, lints, docs, Rust tests, real drivers, a short soak
	@tests/all.sh

test-images: build ## the container image and the Debian package, built and run for real; needs a container engine (PGWEIR_ENGINE=private: have one)
	@tests/images.sh

manifests: build ## only the checks of scripts, Dockerfile and Kubernetes manifests
	@tests/needs.sh test
	@tests/manifests.sh

image: ## the container image, pgweir:latest, from source
	docker build -f docker/Dockerfile -t pgweir .

deb: build ## a Debian package, in target
	@config/debian/build.sh

test-stack: ## the stack in docker/, for real, on a container engine (STACK="base ha": only these parts; PGWEIR_ENGINE=private; PGWEIR_STACK=skip)
	@tests/needs.sh stack
	@tests/stack.sh $(STACK)

drivers: build ## only the driver tests, with the release build
	@tests/needs.sh test
	@tests/drivers/run.sh

monitoring: build ## only the tests of config/monitoring: alerts, dashboards, and all of it running
	@tests/needs.sh test
	@tests/monitoring.sh

soak: build ## 500 clients while the console reloads, reconnects and pauses, and PostgreSQL is killed (SOAK_SECONDS=60)
	@tests/needs.sh demo
	@tests/soak.sh $(or $(SOAK_SECONDS),60)

bench: ## the benchmark, beside PgBouncer (PGBOUNCER=... or in PATH); some minutes with BENCH=--quick, else about 40; BENCH=--help
	@tests/needs.sh bench
	cargo build --release --locked
	cargo build --release --locked --manifest-path benches/Cargo.toml --target-dir $(TARGET)/bench $(if $(FEATURES),--features $(FEATURES))
	@PGWEIR_BIN=$${PGWEIR_BIN:-$(TARGET)/release/pgweir} $(TARGET)/bench/release/pgweir-bench run $(BENCH)

bench-micro: ## micro-benchmarks of framing, owed replies, pool core, SCRAM and the walks over a query (MICRO=word: those with it in their name)
	cargo bench --locked --manifest-path benches/Cargo.toml --target-dir $(TARGET)/bench -- $(MICRO)

bench-callgrind: ## instructions per query under callgrind: of this tree, or of COMMITS="one another" (ARGS=--profile and more: see the script)
	@benches/callgrind.sh $(ARGS) $(COMMITS)

compat: ## the same scenarios against PgBouncer 1.26.1 (PGBOUNCER=... or in PATH; else its recorded answers) and pgweir
	cargo test --locked --test compat -- --brief

compat-record: ## PgBouncer's answers to the scenarios, written anew into tests/compat/recorded
	cargo test --locked --test compat -- --record

differences: ## docs/differences.md, from tests/compat/differences.toml
	cargo test --locked --test compat -- --page

docs: ## the tables in docs/, written anew from the source
	PGWEIR_WRITE_DOCS=1 cargo test --locked --test docs
