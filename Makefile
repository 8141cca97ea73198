# Everything that people and CI run. CI calls nothing else, so the two cannot differ.
# `make help` lists the targets; CONTRIBUTING.md says what each needs and how long it takes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

CARGO ?= cargo
MVN ?= mvn
# One target directory for all: one development build and one release build are all that CI makes.
export CARGO_TARGET_DIR ?= $(CURDIR)/target

# What is run where a release build is wanted; RK=dist/rk-x86_64-linux-musl tries what is shipped.
RELEASE := $(CARGO_TARGET_DIR)/release/rk
RK ?= $(RELEASE)

# Each feature alone, and the sets that are shipped. Features only add, so the rest follows.
FEATURE_SETS := kafka link bytelog health program broker agent controller http cli rmi wasm agent,cli agent,cli,wasm agent,controller,rmi controller,cli default

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z.-]+):.*## /\1\t/' | awk -F '\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# ---- checks -----------------------------------------------------------------------------------

.PHONY: check
check: check-style check-tree check-deps check-features check-units ## formatting, lints, docs, import rules, licences, each feature alone

.PHONY: check-style
check-style:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features

.PHONY: check-tree
check-tree:
	$(CARGO) test --locked --all-features --test architecture

.PHONY: check-deps
check-deps:
	$(CARGO) deny --locked check bans licenses sources
	@# The only C that is compiled for where we run, Linux, is what ring compiles.
	@compilers=$$($(CARGO) tree --locked --all-features --target x86_64-unknown-linux-musl --target aarch64-unknown-linux-musl -e normal,build -i cc --depth 1 --prefix none | tail -n +2 | grep -v '^\[' | cut -d ' ' -f 1 | sort -u | xargs); \
	  if [ "$$compilers" != ring ]; then echo "these crates compile C, only ring may: $$compilers" >&2; exit 1; fi

.PHONY: check-features
check-features:
	@for set in $(FEATURE_SETS); do \
	  echo "cargo check --no-default-features --features $$set"; \
	  said=$$($(CARGO) check --locked --quiet --color never --no-default-features --features "$$set" 2>&1) || { echo "$$said" >&2; exit 1; }; \
	  if [ -n "$$said" ]; then echo "$$said" >&2; exit 1; fi; \
	done

# systemd looks for the program, too, so it gets one that is on every machine. What it does not know it only mentions.
.PHONY: check-units
check-units:
	@units=$$(mktemp -d); trap 'rm -rf "$$units"' EXIT; \
	  for unit in packaging/systemd/*.service; do sed 's|/usr/bin/rk|/bin/true|' $$unit >$$units/$${unit##*/}; done; \
	  systemd-analyze verify --man=no $$units/*.service 2>$$units/said || { cat $$units/said >&2; exit 1; }; \
	  if grep -F "$$units/" $$units/said >&2; then exit 1; fi; \
	  systemd-analyze security --offline=true --threshold=20 --no-pager $$units/rk-controller.service >$$units/said || { cat $$units/said >&2; exit 1; }; \
	  systemd-analyze security --offline=true --threshold=55 --no-pager $$units/rk-agent.service >$$units/said || { cat $$units/said >&2; exit 1; }

.PHONY: audit
audit: ## known vulnerabilities of our dependencies (fetches the advisory database)
	$(CARGO) deny --locked check advisories

# ---- tests ------------------------------------------------------------------------------------

.PHONY: test
test: ## unit tests, simulation and the whole system on the embedded broker; needs only Rust
	$(CARGO) test --locked --all-features

.PHONY: sim
sim: ## SCHEDULES=100000 seeded schedules of the link, from FIRST_SEED=0
	RK_SCHEDULES=$(SCHEDULES) RK_FIRST_SEED=$(FIRST_SEED) $(CARGO) test --locked --all-features --lib link::tests::schedules -- --nocapture
sim: SCHEDULES ?= 100000
sim: FIRST_SEED ?= 0

.PHONY: test-kafka
test-kafka: .kafka ## the whole system on a real three-node Apache Kafka; needs Java 17 and Maven
	RK_TEST_KAFKA=3 $(CARGO) test --locked --all-features --test it --test kafka_harness --test kafka_client -- --include-ignored --test-threads 1
	$(CARGO) test --locked --all-features --test broker java:: -- --include-ignored

# Each page's commands run in namespaces and directories of their own; RK_DOCS_PAGE=docs/exec.md runs one page.
.PHONY: docs-test
docs-test: ## every command of README and docs runs; needs root, unshare, ip
	$(CARGO) test --locked --all-features --test docs -- --include-ignored --nocapture

.PHONY: docs-reference
docs-reference: ## write the pages of docs/reference that come from the code
	$(CARGO) build --locked --all-features --bin rk
	for page in cli configuration; do $(CARGO_TARGET_DIR)/debug/rk reference $$page > docs/reference/$$page.md; done

.PHONY: test-per-agent
test-per-agent: ## the whole system on the embedded broker, with agents that have topics of their own
	RK_TEST_LAYOUT=per-agent $(CARGO) test --locked --all-features --test it

.PHONY: test-rogue
test-rogue: .kafka ## clients that mean harm, on a real Apache Kafka with ACLs; RK_FLOOD_SECONDS=20
	RK_TEST_KAFKA=1 $(CARGO) test --locked --all-features --test rogue -- --include-ignored --test-threads 1 --nocapture

.PHONY: test-jenkins
test-jenkins: rk .kafka .hudson ## a real Hudson whose node is reached through a real three-node Apache Kafka; needs a JDK 17 and Maven
	RK_TEST_KAFKA=3 RK_TEST_PROGRAM=$(RK) $(CARGO) test --locked --all-features --test jenkins -- --include-ignored --test-threads 1 --nocapture

# A Hudson, from Maven Central.
.hudson: compose/hudson/pom.xml
	$(MVN) --quiet --batch-mode --file $< dependency:copy-dependencies -Dmdep.stripVersion=true -DoutputDirectory=$(CURDIR)/.hudson
	@touch .hudson

# Apache Kafka's jars, from Maven Central.
.kafka: compose/kafka/pom.xml
	$(MVN) --quiet --batch-mode --file $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka/lib
	@touch .kafka

.PHONY: test-static
test-static: ## each program of `make static static-agent` as an agent in an empty root, that of another architecture under qemu; needs qemu-user-static
	packaging/static-test.sh

# The harness is the development build that `make test` has made; what it starts is the release build.
CHAOS = RK_TEST_PROGRAM=$(RK) $(CARGO) test --locked --all-features --test chaos --
MINUTES ?= 5
SEED ?= $(shell date +%s)
KILLS ?= 100
MIB ?= 10240
JOBS ?= 1050

.PHONY: chaos
chaos: rk .kafka ## MINUTES=5 of jobs while agents, controller, brokers are killed, paused, cut off; SEED=… repeats a run
	$(CHAOS) suite $(SEED) $(MINUTES)

.PHONY: chaos-agent
chaos-agent: rk .kafka ## one job of MINUTES=10 whose agent is killed KILLS=100 times
	$(CHAOS) agent $(MINUTES) $(KILLS)
chaos-agent: MINUTES = 10

.PHONY: chaos-big
chaos-big: rk .kafka ## one job that writes MIB=10240, and the memory that it takes
	$(CHAOS) big $(MIB)

.PHONY: chaos-queue
chaos-queue: rk .kafka ## the controller is killed with JOBS=1050 jobs, some 50 of them running
	$(CHAOS) queue $(JOBS)

.PHONY: chaos-forged
chaos-forged: rk .kafka ## another agent writes under a job's id
	$(CHAOS) forged

.PHONY: tour
tour: rk .kafka ## three minutes on a real Kafka: a job whose agent, broker and controller are killed, and its whole log
	$(CHAOS) tour

# Coverage-guided, on stable Rust: libFuzzer's flags by hand instead of cargo-fuzz and a nightly compiler.
FUZZ_TARGETS := packet journal_record log_record
SECONDS ?= 10
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares

.PHONY: fuzz
fuzz: ## each fuzz target for SECONDS=10; needs a C++ compiler
	@host=$$(rustc -vV | sed -n 's/^host: //p'); \
	for name in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$name fuzz/artifacts/$$name; \
	  RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=fuzz/target $(CARGO) run --quiet --release --manifest-path fuzz/Cargo.toml \
	    --target $$host --bin $$name -- -max_total_time=$(SECONDS) -max_len=4096 -artifact_prefix=fuzz/artifacts/$$name/ \
	    -print_final_stats=1 fuzz/corpus/$$name; \
	done

# Those of `make test`, more often: a few seconds for each kind of input there, some minutes here.
.PHONY: ci-long
ci-long: ## MUTATIONS=10000000 of each kind of bytes that others may have written, through what decodes them
	RK_MUTATIONS=$(MUTATIONS) $(CARGO) test --locked --all-features --release --test decoders -- --nocapture
ci-long: MUTATIONS ?= 10000000

# ---- the program ------------------------------------------------------------------------------

# The release build, shared by all that runs the program. Cargo decides whether there is something to do.
.PHONY: rk
rk:
ifeq ($(RK),$(RELEASE))
	$(CARGO) build --locked --release --bin rk
endif

ARCHES ?= x86_64 aarch64
# In bytes. Who makes a program larger than this looks at why, first.
STATIC_LIMIT := 15000000
STATIC_AGENT_LIMIT := 5000000

.PHONY: static
static: ## dist/rk-ARCH-linux-musl, one file that runs on any Linux, for ARCHES="x86_64 aarch64"; with sums and bills of materials
	packaging/static.sh rk $(STATIC_LIMIT) $(ARCHES)

.PHONY: static-agent
static-agent: ## dist/rk-agent-ARCH-linux-musl, which can be nothing but an agent
	packaging/static.sh rk-agent $(STATIC_AGENT_LIMIT) $(ARCHES) -- --no-default-features --features agent

.PHONY: release
release: ## VERSION=1.2.3: version, changelog, programs in dist/, a try at publishing, commit and tag; nothing leaves the machine
	packaging/release.sh $(VERSION)

.PHONY: demo
demo: rk ## a broker, a controller, two agents and two jobs on them; ONCE=1 ends after the jobs
	$(RK) demo $(if $(ONCE),--once)

BROKERS ?= embedded kafka kafka3

.PHONY: bench
bench: .kafka ## what the way through Kafka costs with us, beside without; BROKERS="embedded kafka kafka3"
	$(CARGO) bench --locked --all-features --bench bench -- $(BROKERS)

# Instructions do not depend on what else the machine does, so here figures are held.
.PHONY: bench-instructions
bench-instructions: ## instructions and allocations of the packets', logs' and journal's paths, held within 3 %; needs valgrind
	$(CARGO) bench --locked --all-features --bench instructions -- $(if $(WRITE),--write)

.PHONY: certs
certs: rk ## a CA and certificates for localhost in certs/, to try things with; those that are there stay
	@RK=$(RK) sh certs/make.sh -d certs -b server=localhost,127.0.0.1,::1 -c client

# ---- containers -------------------------------------------------------------------------------

# A variable of compose/README.md that is set here or in the environment reaches the compose file. UI= leaves the web page out.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
PROJECT ?= rk
UI ?= yes
IN_COMPOSE = COMPOSE="$(COMPOSE)" COMPOSE_PROJECT_NAME=$(PROJECT) COMPOSE_PROFILES=$(if $(UI),ui) compose/demo.sh

.PHONY: up
up: ## three Kafka brokers, a controller, two agents, two jobs and a web page, in containers; needs Docker
	@$(IN_COMPOSE) up

.PHONY: up-noauth
up-noauth: ## the same with brokers that ask for no password, to try things with Kafka's own tools
	@RK_SETUP_ARGS=--no-auth $(IN_COMPOSE) up

.PHONY: down
down: ## end what `make up` started, and remove all that it kept
	@$(IN_COMPOSE) down

.PHONY: images
images: ## images for amd64 and arm64 from dist/, as an OCI layout in dist/images; BASE=… makes the agent's with a shell too
	compose/images.sh index

.PHONY: push
push: ## push what `make images` made to REGISTRY=registry.example/team; needs skopeo
	compose/images.sh push "$(REGISTRY)"

.PHONY: test-compose
test-compose: .kafka ## the containers on a real engine, with four faults; needs root, Docker Engine, docker-compose, debootstrap
	compose/test.sh

# ---- all of it --------------------------------------------------------------------------------

.PHONY: ci
ci: check test docs-test test-per-agent test-kafka test-rogue bench-instructions chaos ## what every change must pass
	$(MAKE) demo ONCE=1

.PHONY: clean
clean: ## remove what was built and fetched
	$(CARGO) clean
	rm -rf .kafka .hudson dist
