# Runwire: what a person types. Each target installs what it needs; see scripts/.
.DEFAULT_GOAL := help
.PHONY: help setup build demo run test eval

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: ## install Debian packages, the embedding model and ONNX Runtime (only what is missing)
	@scripts/setup

build: setup ## release binaries in target/release
	cargo build --release --workspace

demo: build ## break something in a small lab of namespaces and see it diagnosed (root)
	target/release/runwire-eval demo --bin-dir target/release

run: build ## collector, Prometheus and assistant on this host, until Ctrl-C (root)
	target/release/runwire-eval up --bin-dir target/release

test: setup ## everything CI runs (root for the privileged tests)
	scripts/test

eval: build ## every scenario, with real faults (root)
	target/release/runwire-eval run --bin-dir target/release
