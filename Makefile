# Every target has one line in `make help`: the text behind `##`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_COLOR ?= auto

# Where cargo builds; `make clean` removes it, the demo's data directory with it.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# Simulated seeds of `make sim` and of `make test`, seconds of `make fuzz`.
SEEDS ?= 1000
SEEDS_TEST ?= 200
SECONDS_FUZZ ?= 60

# Cycles of the `make torture-...` targets.
CYCLES ?= 20

# Of `make compare`: the other program, rounds, and seconds of each measurement.
RIVAL ?= redis
ROUNDS ?= 3
SECS ?= 5

# What `make test` runs, in this order: cheap complaints first. A new check is a target below and a word here. Each must
# be able to fail. Together they stay under 20 minutes on two cores from a clean checkout.
TEST_STEPS := setup fmt-check lint tidy unit simulate loom demo-sabotage bench-count bench-store-small bench-runtime-small

.PHONY: simulate help setup build demo demo-sabotage test sim planted fuzz loom bench bench-count bench-store bench-store-small bench-runtime bench-poison bench-runtime-small bench-live compare pictures torture-power torture-io torture-kill torture-full lint tidy fmt clean fmt-check unit

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)$$/  make \1\t\2/' | expand -t 20

setup: ## check what the machine needs; install missing Debian packages (root) or print the apt line
	@scripts/setup.sh

build: setup ## build the release binary target/release/gristmill
	cargo build --release --package gristmill

demo: setup ## the word-count demo across hard kills; TEXT=dir, LINES=n, KEEP=1 leaves the server up
	@echo "building in release mode; the first build takes some minutes"
	@started=$$SECONDS; cargo build --release --package gristmill && echo "built in $$((SECONDS - started)) s"
	@KEEP=$(KEEP) $(TARGET_DIR)/release/gristmill demo word-count $(if $(TEXT),--text '$(TEXT)') $(if $(LINES),--lines '$(LINES)')

demo-sabotage: ## the demo with promises broken on purpose, which it must notice
	cargo build --package gristmill --features sabotage
	@scripts/demo-sabotage.sh $(TARGET_DIR)/debug/gristmill

test: ## everything that must hold before a change is taken: TEST_STEPS of the Makefile, one after the other
	@scripts/steps.sh $(TEST_STEPS)

sim: ## simulate SEEDS=1000 seeds of every workload
	cargo run --package gristmill-sim -- --seeds 1..$$(($(SEEDS) + 1)) --stats

simulate: ## the simulation of make test: SEEDS_TEST=200 seeds, and beside them every planted bug and crash points of the engine
	cargo build --package gristmill-sim
	@sim=$(TARGET_DIR)/debug/gristmill-sim; { $$sim --seeds 1..$$(($(SEEDS_TEST) + 1)) --stats && $$sim --planted even; } & beside=$$!; \
		status=0; { $$sim --planted odd && $$sim --crash-points; } || status=$$?; wait $$beside && exit $$status

planted: ## find every planted bug by simulation
	cargo run --package gristmill-sim -- --planted all

fuzz: ## fuzz frames and everything read from disk, SECONDS_FUZZ=60 each (needs cargo-fuzz and a nightly toolchain)
	cd net/wire/fuzz && cargo +nightly fuzz run frames -- -max_total_time=$(SECONDS_FUZZ)
	cd fuzz && for target in $$(cargo +nightly fuzz list); do cargo +nightly fuzz run $$target -- -max_total_time=$(SECONDS_FUZZ) || exit 1; done

loom: ## model-check the queue between cores
	RUSTFLAGS="--cfg loom" cargo test --package gristmill-io --test loom_mesh --release --target-dir $(TARGET_DIR)/loom

bench: ## micro-benchmarks; every bench writes target/bench/NAME.json, STRICT=1 fails on a missed target
	BENCH_COMMAND='make bench' cargo bench --package gristmill-benches --bench put_stages --bench store

bench-count: setup ## instructions per put and get by callgrind, against benches/count.json; TOP=30 functions, UPDATE=1 commits
	BENCH_COMMAND='make bench-count' cargo bench --package gristmill-benches --bench count -- $(if $(TOP),--top $(TOP)) $(if $(UPDATE),--update) $(if $(ONLY),--only '$(ONLY)')

bench-store: setup ## the engine beside the bare disk (fio) and other stores (rocksdb, fjall): ROUNDS=3 SECS=4 ONLY=name GRAINS=n STATE_GB=n RIVALS=no DIR=folder STRICT=1
	@command -v fio >/dev/null || scripts/packages.sh fio
	@[ '$(RIVALS)' = no ] || { [ -f /usr/include/rocksdb/c.h ] && ls /usr/lib/llvm*/lib/libclang*.so* >/dev/null 2>&1; } || scripts/packages.sh librocksdb-dev libclang-dev
	@[ '$(RIVALS)' = no ] || ROCKSDB_INCLUDE_DIR=/usr/include ROCKSDB_LIB_DIR=/usr/lib/$$(gcc -print-multiarch) \
		cargo build --release --features store-rivals --manifest-path benches/compare/Cargo.toml --target-dir $(TARGET_DIR)/compare
	BENCH_COMMAND='make bench-store$(if $(ONLY), ONLY="$(ONLY)")' cargo bench --package gristmill-benches --bench engine -- \
		$(if $(filter no,$(RIVALS)),,--rivals $(abspath $(TARGET_DIR))/compare/release/gristmill-store-rivals) \
		$(if $(filter-out file,$(origin ROUNDS)),--rounds '$(ROUNDS)') $(if $(filter-out file,$(origin SECS)),--secs '$(SECS)') \
		$(if $(ONLY),--only '$(ONLY)') $(if $(GRAINS),--grains '$(GRAINS)') $(if $(STATE_GB),--state-gb '$(STATE_GB)') $(if $(DIR),--dir '$(DIR)')

bench-store-small: ## all measures of bench-store at a size that takes seconds: whether they work, not how fast
	cargo test --package gristmill-benches --bench engine -- --size small --no-fio

bench-runtime: setup ## handler runs of one core: counters, maps, messages, timers, 10 million of them pending: ROUNDS=3 SECS=4 ONLY=name TIMERS=n DIR=folder STRICT=1
	BENCH_COMMAND='make bench-runtime$(if $(ONLY), ONLY="$(ONLY)")' cargo bench --package gristmill-benches --bench runtime -- --suite runtime \
		$(if $(filter-out file,$(origin ROUNDS)),--rounds '$(ROUNDS)') $(if $(filter-out file,$(origin SECS)),--secs '$(SECS)') \
		$(if $(ONLY),--only '$(ONLY)') $(if $(TIMERS),--timers '$(TIMERS)') $(if $(DIR),--dir '$(DIR)')

bench-poison: setup ## what other keys notice of 1 % that always fail or sleep, and of one with 30 % of all events: ROUNDS=3 SECS=4 ONLY=name DIR=folder STRICT=1
	BENCH_COMMAND='make bench-poison$(if $(ONLY), ONLY="$(ONLY)")' cargo bench --package gristmill-benches --bench runtime -- --suite poison \
		$(if $(filter-out file,$(origin ROUNDS)),--rounds '$(ROUNDS)') $(if $(filter-out file,$(origin SECS)),--secs '$(SECS)') \
		$(if $(ONLY),--only '$(ONLY)') $(if $(DIR),--dir '$(DIR)')

bench-runtime-small: ## all measures of bench-runtime and bench-poison at a size that takes seconds: whether they work, not how fast
	cargo test --package gristmill-benches --bench runtime -- --size small

bench-live: build ## live latency over two hops beside a bounded input that loads: ROUNDS=1 LINES=10000000 SECS=230 a load RATE=live lines/s STRICT=1
	BENCH_COMMAND='make bench-live' cargo bench --package gristmill-benches --bench live -- \
		--gristmill $(abspath $(TARGET_DIR))/release/gristmill --rounds $(if $(filter file,$(origin ROUNDS)),1,$(ROUNDS)) \
		$(if $(LINES),--lines '$(LINES)') $(if $(filter-out file,$(origin SECS)),--secs '$(SECS)') $(if $(RATE),--rate '$(RATE)')

compare: build ## one core beside another program: RIVAL=redis ROUNDS=3 SECS=5 ONLY='put 50x64' DIR=folder STRICT=1
	@command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || scripts/packages.sh redis-server
	cargo build --release --manifest-path benches/compare/Cargo.toml --target-dir $(TARGET_DIR)/compare
	@BENCH_COMMAND='make compare RIVAL=$(RIVAL) ROUNDS=$(ROUNDS) SECS=$(SECS)$(if $(ONLY), ONLY="$(ONLY)")' \
		$(TARGET_DIR)/compare/release/gristmill-compare '$(RIVAL)' --gristmill $(TARGET_DIR)/release/gristmill \
		--rounds $(ROUNDS) --secs $(SECS) --only '$(ONLY)' $(if $(DIR),--dir '$(DIR)')

pictures: build ## pictures of `top` and of the dashboard's panels from a server under load, into docs/images
	@fc-list 2>/dev/null | grep -q DejaVuSansMono && command -v prometheus >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null \
		|| scripts/packages.sh prometheus fonts-dejavu-core fontconfig python3-venv
	cargo build --release --package gristmill-loadgen
	python3 -m venv $(TARGET_DIR)/pictures-venv
	$(TARGET_DIR)/pictures-venv/bin/pip install --quiet --disable-pip-version-check --requirement scripts/pictures.txt
	rm -rf $(TARGET_DIR)/pictures
	$(TARGET_DIR)/pictures-venv/bin/python scripts/pictures.py --gristmill $(TARGET_DIR)/release/gristmill \
		--loadgen $(TARGET_DIR)/release/loadgen --work $(TARGET_DIR)/pictures --out docs/images

torture-power: setup ## power cuts on a disk with a volatile cache, as root: CYCLES=20 SEED=n; then 5 with a program that flushes nothing
	@command -v nbdkit >/dev/null && command -v nbdfuse >/dev/null && command -v mkfs.ext4 >/dev/null \
		|| scripts/packages.sh nbdkit libnbd-bin e2fsprogs mount
	cargo build --package gristmill --features planted-no-flush
	@mkdir -p $(TARGET_DIR)/torture && cp $(TARGET_DIR)/debug/gristmill $(TARGET_DIR)/torture/gristmill-no-flush
	cargo build --release --package gristmill
	scripts/torture_power.py --gristmill $(TARGET_DIR)/release/gristmill --work $(TARGET_DIR)/torture/power --cycles $(CYCLES) $(if $(SEED),--seed $(SEED))
	scripts/torture_power.py --gristmill $(TARGET_DIR)/torture/gristmill-no-flush --work $(TARGET_DIR)/torture/no-flush --cycles 5 --expect-loss

torture-io: setup ## a disk that fails (EIO) or is slow under load, as root: CYCLES=20 SEED=n
	@command -v nbdkit >/dev/null && command -v nbdfuse >/dev/null && command -v mkfs.ext4 >/dev/null \
		|| scripts/packages.sh nbdkit libnbd-bin e2fsprogs mount
	cargo build --release --package gristmill
	scripts/torture_io.py --gristmill $(TARGET_DIR)/release/gristmill --work $(TARGET_DIR)/torture/io --cycles $(CYCLES) $(if $(SEED),--seed $(SEED))

torture-kill: setup ## SIGKILL during recovery, checkpoints, flushes and merges; verifying finds nothing damaged: CYCLES=20 SEED=n
	cargo build --release --package gristmill
	scripts/torture_kill.py --gristmill $(TARGET_DIR)/release/gristmill --work $(TARGET_DIR)/torture/kill --cycles $(CYCLES) $(if $(SEED),--seed $(SEED))

torture-full: setup ## a full disk under load and at a start, on a small ext4 and on tmpfs, as root: CYCLES=20 SEED=n
	@command -v mkfs.ext4 >/dev/null || scripts/packages.sh e2fsprogs mount
	cargo build --release --package gristmill
	scripts/torture_full.py --gristmill $(TARGET_DIR)/release/gristmill --work $(TARGET_DIR)/torture/full --cycles $(CYCLES) $(if $(SEED),--seed $(SEED))

lint: ## clippy over the whole workspace, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings

tidy: ## checks that lints cannot make: crate arrows, forbidden names, file sizes, dead files and links
	cargo xtask tidy

unit: ## cargo test over the whole workspace
	cargo test --workspace

fmt: ## format all Rust code
	cargo fmt --all

fmt-check: ## check that all Rust code is formatted
	cargo fmt --all --check

clean: ## remove everything that was built and the demo's data
	cargo clean
