CARGO ?= cargo
# What the virtual machines need, beside the Rust toolchain: program, and Debian's package of it.
VM_PROGRAMS := qemu-system-x86_64:qemu-system-x86 busybox:busybox-static strip:binutils gcc:gcc make:make sparse:sparse

.PHONY: build
build:
	$(CARGO) build --release

# Everything: what needs no virtual machine, then scenarios on two kernels.
.PHONY: test
test: check test-vm

# Form, lints, documentation, tests beside the code and of the whole program.
.PHONY: check
check: lint docs test-host

.PHONY: lint
lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	@if command -v shellcheck >/dev/null 2>&1; then shellcheck .ci/run; else echo "shellcheck is not installed: scripts are not looked at"; fi

# The documentation of the code builds without a warning; links of the other pages are a test of their own (tests/docs_links.rs).
.PHONY: docs
docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet

# All but the virtual machines; with the command alone for documentation's examples, of which there are none yet.
.PHONY: test-host
test-host:
	$(CARGO) test --quiet --lib --bins --test '[a-u]*' --test 'warden'

# Licences, sources and unwanted crates (cargo install cargo-deny). Without it tests/licences.rs judges by the same file.
.PHONY: deny
deny:
	$(CARGO) deny check licenses bans sources

# Installs what the virtual machines need and is missing; says what to do where it can't.
.PHONY: vm-deps
vm-deps:
	@missing=""; \
	for pair in $(VM_PROGRAMS); do \
		command -v "$${pair%%:*}" >/dev/null 2>&1 || missing="$$missing $${pair##*:}"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null 2>&1; then \
		echo "missing:$$missing (names of Debian's packages); install them, or set OOMWARDEN_VM=skip" >&2; exit 1; \
	fi; \
	sudo=""; \
	if [ "$$(id -u)" != 0 ]; then \
		command -v sudo >/dev/null 2>&1 || { echo "run as root: apt-get install --no-install-recommends$$missing" >&2; exit 1; }; \
		sudo=sudo; \
	fi; \
	echo "installing$$missing"; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

# Scenarios on real kernels. One of them: make test-vm ARGS=6.12::ladder
.PHONY: test-vm
test-vm: vm-deps
	$(CARGO) test --release --test vm -- $(ARGS)

# Before a release, some hours: fifty rounds, more random cases, real-time kernels, the module for every kernel that Debian has.
.PHONY: test-long
test-long: lint test-host vm-deps
	OOMWARDEN_TEST_CASES=10 PROPTEST_CASES=2560 $(CARGO) test --release --quiet --lib
	OOMWARDEN_VM_LONG=1 OOMWARDEN_VM_ROUNDS=50 $(CARGO) test --release --test vm -- $(ARGS)

# The main job, to look at: on this machine where it can be, else in a virtual machine.
.PHONY: demo
demo: vm-deps
	@$(CARGO) test --release --test vm -- --demo $(ARGS)
