# Two commands matter: `make demo` and `make test`. Each sets everything up by itself.
# CARGO_TARGET_DIR and KUSTODY_CACHE say where build output is kept; both have defaults.

SHELL := /bin/bash
export KUSTODY_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kustody
export KUSTODY_TEST_CLUSTER := $(KUSTODY_CACHE)/bin/test-cluster
export PATH := $(KUSTODY_CACHE)/tools/bin:$(PATH)
KUBERNETES ?= 1.35
export KUSTODY_KUBERNETES := $(KUBERNETES)
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test unit e2e fuzz bench lint golden deny generate cel-answers spdy-answers websocket-answers cluster system-packages clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: cluster ## the main job, played on a real cluster; Ctrl-C removes everything
	cargo build --locked --bin kustody --example demo
	KUSTODY_BIN=$(TARGET)/debug/kustody $(TARGET)/debug/examples/demo

test: unit e2e ## all tests: unit, policy tables, integration, end to end, the test cluster's own

unit: cluster tools ## everything that needs no cluster, and the stores against a real S3 server
	tests/run-units.sh

e2e: cluster clients ## end to end on a real cluster; KUSTODY_TEST_BULK_MB (32) each way through one session
	cargo test --locked --test e2e

fuzz: ## every reader fed with mutated inputs, the same every time; KUSTODY_FUZZ_SECONDS=600 before a release: new ones
	cargo test --locked --test fuzz

bench: cluster ## floor, peer and Kustody interleaved; prints medians and ratios
	cargo bench --locked --bench kustody

lint: ## formatting, clippy and rustdoc with warnings denied, gofmt and go vet
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	@unformatted=$$(gofmt -l tests); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	go -C tests/cluster vet ./...
	go -C tests/cel vet ./...
	go -C tests/spdy vet ./...
	go -C tests/websocket vet ./...
	go -C tests/clients/go vet ./...

deny: tools ## licences, bans and sources of all dependencies
	cargo deny --config .deny.toml check bans licenses sources

golden: ## writes the goldens anew
	KUSTODY_UPDATE_GOLDEN=1 cargo test --locked --test it generate

generate: golden ## writes manifests, webhook configuration and recording schema anew

cel-answers: ## asks Kubernetes' CEL what the expressions of tests/cel say, and which functions there are
	go -C tests/cel run . corpus.yaml answers.json
	go -C tests/cel run . declarations ../../src/core/expression/declarations.txt

spdy-answers: ## asks Kubernetes' SPDY code what it reads in random and damaged streams
	go -C tests/spdy run . 900 1 answers.json

websocket-answers: ## asks the WebSocket code of API server and kubectl what they read in random and damaged streams
	go -C tests/websocket run . 1700 1 answers.json

cluster: system-packages
	@mkdir -p $(KUSTODY_CACHE)/bin
	go -C tests/cluster build -o $(KUSTODY_TEST_CLUSTER) .
	nice -n 5 $(KUSTODY_TEST_CLUSTER) build --kubernetes $(KUBERNETES)

system-packages:
	@tests/cluster/system-packages.sh

.PHONY: clients
clients:
	@tests/clients/install.sh

.PHONY: tools
tools:
	@tests/tools.sh

clean: ## ends every test cluster and removes build output
	-$(KUSTODY_TEST_CLUSTER) down --all
	cargo clean
