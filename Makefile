# Targets for people and CI. `make help` lists them.

PREFIX ?= /usr
DESTDIR ?=
SYSCONFDIR ?= /etc
# release for what is installed and measured, dev (with assertions) for what the tests boot.
PROFILE ?= release
SUITE ?= trixie
CARGO ?= cargo
# Programs are installed without their debug information; a package keeps it apart by itself.
STRIP ?= -s

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HOST_TUPLE := $(shell rustc --print host-tuple)
BUILT := $(TARGET_DIR)/$(HOST_TUPLE)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# With the tests' own features, so that what `check` has built is not built again.
TARGETS := $(if $(filter dev,$(PROFILE)),--all-targets,--bins)
IMAGE := $(BUILT)/gateway.oci.tar
# Manual pages and completions.
PAGES := $(BUILT)/described
LAYER := $(abspath $(TARGET_DIR))/layer
E2E := $(sort $(patsubst tests/e2e/%.rs,%,$(wildcard tests/e2e/*.rs)))

.PHONY: help build image pages install install-files check fuzz corpus layer test e2e idle rpm repo demo planted conformance conformance-on singleton torture power soak bench streams state clean generate-check

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: ## build the programs
	$(CARGO) build --workspace $(TARGETS) --profile $(PROFILE) --locked

image: build ## write the gateway's OCI archive, without Podman
	tests/image $(BUILT)/beemesh-gateway localhost/beemesh-gateway:$(VERSION) $(IMAGE) $(VERSION)

pages: build ## write the manual pages and completions, as the programs describe themselves
	rm -rf $(PAGES)
	$(BUILT)/describe $(PAGES)

install: image pages ## install below DESTDIR, as an ordinary user, touching nothing else
	$(MAKE) --no-print-directory install-files

# Apart from what it installs, so that a package can build by its own means.
install-files:
	install -D $(STRIP) -m 0755 $(BUILT)/beemesh $(DESTDIR)$(PREFIX)/bin/beemesh
	install -D $(STRIP) -m 0755 -t $(DESTDIR)$(PREFIX)/libexec/beemesh $(BUILT)/beemesh-agent $(BUILT)/beemesh-pod
	install -D -m 0644 $(IMAGE) $(DESTDIR)$(PREFIX)/share/beemesh/gateway.oci.tar
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/beemesh quadlet/units/gateway.yaml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/containers/systemd quadlet/units/beemesh-gateway.kube quadlet/units/beemesh-gateway.image
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system $(wildcard systemd/system/*.service systemd/system/*.socket)
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system/beemesh-pod-.service.d $(wildcard systemd/system/beemesh-pod-.service.d/*.conf)
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system-preset systemd/system-preset/90-beemesh.preset
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/sysusers.d systemd/sysusers.d/beemesh.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/tmpfiles.d systemd/tmpfiles.d/beemesh.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/sysctl.d systemd/sysctl.d/10-beemesh.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/dbus-1/system.d systemd/dbus-1/system.d/io.beemesh.Agent1.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/dbus-1/interfaces systemd/dbus-1/interfaces/io.beemesh.Agent1.xml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/beemesh systemd/beemesh/agent.toml
	install -d -m 0755 $(DESTDIR)$(SYSCONFDIR)/beemesh/agent.toml.d
	for section in 1 5 8; do install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man$$section $(PAGES)/man$$section/* || exit 1; done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(PAGES)/bash/beemesh
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(PAGES)/zsh/_beemesh
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(PAGES)/fish/beemesh.fish

check: generate-check ## format, lints, tidy rules and unit tests; changes nothing
	for mistake in tests/planted/*.patch; do git apply --check "$$mistake" || exit 1; done
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --workspace --test '*' --locked -- -D warnings
	$(CARGO) test --workspace --locked

fuzz: ## let each fuzz target loose on its seeds (FUZZ_SECONDS=60 for longer, ONLY=ipc for one)
	fuzz/run $(TARGET_DIR)/fuzz $(or $(FUZZ_SECONDS),10) $(ONLY)

corpus: ## keep of what `make fuzz` found the least that reaches the same code, for the next runs (ONLY=ipc for one)
	fuzz/keep $(TARGET_DIR)/fuzz $(ONLY)

generate-check: ## the committed FlatBuffers code is what flatc makes of the schema
	tests/generate-check

# Beemesh is installed by dnf on one booted host, and what that has changed lies over the root of all others: dnf is
# tried, and booting three hosts copies nothing. A second repository has the release before this one. What is packaged
# twice must be the same; that it is also when it is built twice takes an hour to see (`rpm/reproduce`).
layer e2e idle torture power soak: PROFILE := dev
layer: ## install what the tests boot, by dnf, into a folder that lies over the root of hosts
	rpm/previous $(TARGET_DIR)/rpm-previous
	rpm/repo $(TARGET_DIR)/rpm-previous $(TARGET_DIR)/previous $(TARGET_DIR)/stubs
	$(MAKE) --no-print-directory PROFILE=dev repo
	rpm/versions $(VERSION) $(TARGET_DIR)/rpm
	rpm/build --quick $(TARGET_DIR)/rpm-again
	diff -r $(TARGET_DIR)/rpm $(TARGET_DIR)/rpm-again
	rpm/layer $(SUITE) $(TARGET_DIR)/repo $(TARGET_DIR)/stubs $(LAYER)

# What hosts of tests have.
ON_HOSTS = BEEMESH_LAYER=$(LAYER) BEEMESH_OFFER='$(CURDIR)/rpm/offer "$$1" $(abspath $(addprefix $(TARGET_DIR)/,previous repo stubs))' SUITE=$(SUITE)

e2e: layer ## boot hosts and run the end-to-end tests (ONLY=name for one file)
ifdef ONLY
	$(ON_HOSTS) $(CARGO) test --workspace --locked --no-fail-fast $(addprefix --test ,$(ONLY)) -- --test-threads=1 --nocapture $(CASE)
else
	$(ON_HOSTS) CARGO=$(CARGO) tests/lanes $(E2E)
endif

idle: ## watch for an hour that an idle cluster with two hosts of one name writes nothing (IDLE_SECONDS=60 for less)
	tests/prepare
	$(MAKE) --no-print-directory e2e ONLY=idle BEEMESH_IDLE_SECONDS=$(or $(IDLE_SECONDS),3600)

singleton: ## strike the hosts of a singleton with five hundred faults and look for a second one (FAULTS=50 for fewer, SEED=7 for others)
	tests/prepare
	$(MAKE) --no-print-directory e2e ONLY=singleton CASE=many_faults BEEMESH_FAULTS=$(or $(FAULTS),500) BEEMESH_SEED=$(or $(SEED),1)

test: ## everything: set-up, check, booted hosts
	tests/prepare
	$(MAKE) check
	$(MAKE) fuzz
	$(MAKE) e2e

rpm: ## build source and binary packages of HEAD into target/rpm, on Debian or Fedora
	rpm/build $(TARGET_DIR)/rpm
	rpm/lint $(TARGET_DIR)/rpm

repo: $(if $(filter dev,$(PROFILE)),,rpm) ## make a dnf repository of them in target/repo (PROFILE=dev: of what the tests boot, in seconds)
	$(if $(filter dev,$(PROFILE)),rpm/build --quick $(TARGET_DIR)/rpm)
	rpm/repo $(TARGET_DIR)/rpm $(TARGET_DIR)/repo $(TARGET_DIR)/stubs

demo: ## boot three hosts, form a cluster, apply examples/web.yaml, and leave it all running
	tests/prepare
	rm -rf $(LAYER)
	$(MAKE) DESTDIR=$(LAYER) install
	BEEMESH_LAYER=$(LAYER) tests/demo

conformance: ## compare manifests with what Kubernetes makes of them, on both Podmans (ONLY=env,probes-http for some, QUICK=1 for a third on one)
	tests/prepare
	rm -rf $(TARGET_DIR)/conformance
	code=0; for suite in trixie $(if $(QUICK),,forky); do \
	  $(MAKE) --no-print-directory PROFILE=dev conformance-on SUITE=$$suite || code=1; done; exit $$code

# Called with the profile, so that it runs what the layer has built.
conformance-on: layer
	trap 'tests/testbed down' EXIT; trap 'exit 1' INT TERM; $(ON_HOSTS) $(BUILT)/conformance \
	  $(if $(QUICK),--part 1/3 --side beemesh) $(if $(ONLY),--only $(ONLY)) --results $(TARGET_DIR)/conformance \
	  $(if $(QUICK)$(ONLY),,--report docs/kubernetes.md) $(ARGS)

torture: TORTURE := $(if $(QUICK),--rounds 1 --faults 15,--report docs/torture.md)
torture: ## strike booted hosts with a thousand faults and look for what got lost (QUICK=1 for one short round, ARGS=--help)
power: TORTURE := power $(if $(QUICK),--cuts 5 --bare 3,--report docs/power.md)
power: ## take the power of booted hosts two hundred times, beside bare Podman (QUICK=1 for five times, ARGS=--help)
soak: TORTURE := soak $(if $(QUICK),--minutes 4,--report docs/soak.md)
soak: ## let faults and clients at booted hosts for an hour and look for what grows (QUICK=1 for four minutes, ARGS=--help)
torture power soak:
	tests/prepare
	$(MAKE) --no-print-directory layer
	trap 'tests/testbed down' EXIT; trap 'exit 1' INT TERM; $(ON_HOSTS) $(BUILT)/torture $(TORTURE) $(ARGS)

planted: ## put mistakes into a copy of the gateway and show that its simulation catches each
	tests/planted/run $(ONLY)

# The programs first and by themselves: what etcd's client needs must not change how they are built.
bench: ## measure on booted hosts, beside etcd, Swarm and Podman (ONLY=commit,… for parts, QUICK=1 for small numbers, ARGS=--help)
	tests/prepare bench
	rm -rf $(LAYER)
	$(MAKE) DESTDIR=$(LAYER) install >/dev/null
	tests/bench/peers $(SUITE) $(TARGET_DIR)/bench/peers
	$(CARGO) build --release --locked -p beemesh-tests --features etcd --bin bench
	trap 'tests/testbed down' EXIT; trap 'exit 1' INT TERM; \
	  BEEMESH_LAYER=$(LAYER) BEEMESH_PEERS=$(abspath $(TARGET_DIR)/bench/peers) SUITE=$(SUITE) \
	  BEEMESH_GATEWAY=$(TARGET_DIR)/$(HOST_TUPLE)/release/beemesh-gateway \
	  $(TARGET_DIR)/$(HOST_TUPLE)/release/bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) $(ARGS)

streams: ## measure what an event stream costs, without booted hosts
	$(CARGO) test --release --locked -p beemesh-gateway -- --ignored --nocapture streams

state: ## measure what a full state costs a gateway, without booted hosts
	$(CARGO) test --release --locked -p beemesh-gateway -- --ignored --nocapture full_state

clean: ## remove what was built
	$(CARGO) clean
