# Runwire: what a person types. Each target installs what it needs; see scripts/.
.DEFAULT_GOAL := help
.PHONY: help setup build demo run test eval bench fuzz kernels images

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

bench: build ## what the collector costs, into eval/RESULTS.md (root; ten minutes in which nothing else should run)
	target/release/runwire-eval bench --bin-dir target/release --json eval/results/collector.json --markdown eval/RESULTS.md

SECONDS_EACH ?= 60
fuzz: ## every parser against libFuzzer, each for SECONDS_EACH (60)
	SECONDS_EACH=$(SECONDS_EACH) scripts/fuzz

# Versions as of Debian 12 and the backports of Debian 13; `newest` is the newest there is. ARCHITECTURE=arm64: see scripts/kernels.
KERNELS ?= 6.1 6.12 6.16 newest

kernels: setup ## boot other kernels in QEMU and test every signal there (some ten minutes each)
	scripts/kernels $(KERNELS)

# Where images go, and for which machines: several platforms need a builder that has them. Without a registry the images are for this machine, and stay here.
REGISTRY ?=
PLATFORMS ?= linux/amd64,linux/arm64
CONTAINERS ?= $(firstword $(foreach program,docker podman buildah,$(if $(shell command -v $(program)),$(program))) docker)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

images: ## container images of both programs: here (docker, podman or buildah), or pushed to REGISTRY=… (Docker with buildx)
	for image in collector assistant; do \
		if [ -n "$(REGISTRY)" ]; then \
			docker buildx build --file manifests/images/Dockerfile --target $$image --platform $(PLATFORMS) \
				--tag $(REGISTRY)/runwire-$$image:$(VERSION) --push . || exit 1; \
		else \
			$(CONTAINERS) build --file manifests/images/Dockerfile --target $$image --tag runwire-$$image:$(VERSION) . || exit 1; \
		fi; \
	done
