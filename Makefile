# make demo   installs what is missing, builds, and runs a throw-away Postgres, proxy and console
# make test   everything that CI runs
# make quick  the tests that need neither Postgres nor Python, npm or a browser: to run after each change
# make help   the rest

TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)
CARGO := cargo
# Everything is built inside the clone.
export CARGO_TARGET_DIR := $(CURDIR)/target
# cargo-nextest runs tests in parallel processes and says which is slow; without it, cargo does.
NEXTEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo yes)

.PHONY: help demo test quick install-build install-demo install-test install-bench install-conformance install-fuzz conformance fmt clippy deny doc unit policies fixtures soak fuzz bench build clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

demo: install-demo
	@echo "building (the first time takes some minutes) ..."
	$(CARGO) build --quiet --profile demo
	@target/demo/countersign demo

# make build  an optimised binary in target/release
build: install-build
	$(CARGO) build --release

test: install-test fmt clippy deny doc unit policies fixtures

# A test binary that needs servers, drivers or a browser includes `tests/support/mod.rs` or `browser.rs`;
# `tests/architecture.rs` checks that the others need nothing.
QUICK = $(shell grep -L -e '^mod support;' -e '^mod browser;' tests/*.rs tests/*/main.rs | \
	sed -E 's,^tests/,,; s,(/main)?\.rs$$,,')
quick:
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --no-fail-fast --test-threads 4 --lib $(addprefix --test ,$(QUICK))
else
	$(CARGO) test --quiet --no-fail-fast --lib $(addprefix --test ,$(QUICK))
endif

install-build install-demo install-test install-bench install-conformance install-fuzz:
	@.ci/install $(patsubst install-%,%,$@)

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets --quiet -- -D warnings

deny:
	@if command -v cargo-deny >/dev/null; then cargo-deny --log-level error check licenses bans sources; \
	else echo "cargo-deny is not there: licences, bans and sources are not checked"; fi

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet --document-private-items

unit:
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --no-fail-fast
else
	$(CARGO) test --quiet
endif

policies:
	$(CARGO) run --quiet -- policy test policies
	$(CARGO) run --quiet -- policy lint policies

fixtures:
	$(CARGO) build --quiet
	@$(TOOLS)/python/bin/python tests/tools/verify-fixtures target/debug/countersign

# make soak   the long tests: kill -9 rounds, mutations, large ledgers
soak: install-test
	COUNTERSIGN_SOAK=1 $(CARGO) nextest run --cargo-profile soak --no-fail-fast --profile soak

# make fuzz   all fuzzers, one after the other, FUZZ_SECONDS each (an hour)
FUZZ_SECONDS := 3600
fuzz: install-fuzz
	fuzz/run $(FUZZ_SECONDS)

# make bench  the benchmarks of docs/performance.md
bench: install-bench build
	benches/run

# make conformance  PostgreSQL's own regression and isolation suites, directly and through the proxy
conformance: install-conformance
	$(CARGO) build --quiet --profile demo
	tests/conformance/run --major 15
	tests/conformance/run --major 18

clean:
	$(CARGO) clean
