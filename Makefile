# haulback. "make help" lists what there is.

GO       ?= go
FUZZTIME ?= 10s
PKG      ?= ./...
OUT      := out
PROGRAMS := ./cmd/haulback ./cmd/haulbackd ./cmd/haulback-sim

# The toolchain records revision and version of a checkout in the programs;
# where git cannot tell (an unpacked archive), they say "devel".
VCS := $(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && git status --porcelain >/dev/null 2>&1 && echo true || echo false)

# grpcnotrace leaves out the request pages of gRPC, which nobody serves here, and
# the templates that they need: haulback is 38 MB and not 52, stripped 28 and not 37.
BUILD := -trimpath -tags grpcnotrace -buildvcs=$(VCS)

.PHONY: live all programs packages demo demo-disk test man check race fuzz proto proto-accept bench bench-quick bench-programs bench-go bench-micro cover clean help

all: programs ## build bin/haulback, bin/haulbackd and bin/haulback-sim, static, and bin/haulback-vddk where gcc is
	@if [ "$$($(GO) env GOOS GOARCH | tr '\n' ' ')" = 'linux amd64 ' ] && command -v gcc >/dev/null; then \
	  set -x; CGO_ENABLED=1 $(GO) build $(BUILD) -o bin/ ./cmd/haulback-vddk; \
	else echo "bin/haulback-vddk (for vddk:// disks) is left out: it needs gcc on linux/amd64"; fi

# All that is built without a C compiler, and all that the demonstrations need.
programs:
	CGO_ENABLED=0 $(GO) build $(BUILD) -o bin/ $(PROGRAMS)

# "make demo VM=..." reaches the script; a VM of the environment, which may mean anything, does not.
demo: export HAULBACK_DEMO_VM ?= $(if $(filter command,$(firstword $(origin VM))),$(VM))
demo: programs ## bring VMs home between two simulated sites; with disks of your own: VM="REPLICA.img:ORIGINAL.img ..."
	@HAULBACK_BIN=bin deploy/demo/demo.sh

demo-disk: programs ## copy a disk between two daemons, kill one half way, and prove the result
	@HAULBACK_BIN=bin deploy/demo/disk.sh

test: ## everything that has to be green: installs what it needs, checks, tests, builds
	@GO=$(GO) deploy/ci/test.sh

man: ## the manual pages of both programs, in out/man
	@mkdir -p $(OUT)/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)} $(GO) run ./cmd/haulback man --dir $(OUT)/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)} $(GO) run ./cmd/haulbackd man --dir $(OUT)/man

packages: ## .deb and .rpm of the commit for amd64 and arm64, SBOMs and checksums, in out/packages
	@GO=$(GO) deploy/packages/build.sh $(OUT)/packages

check: ## format, vet, staticcheck, module files; no tests
	@GO=$(GO) deploy/ci/check.sh

live: ## before a release: the package in a virtual machine with a systemd that runs; root on Debian, five minutes, debootstrap and QEMU
	@GO=$(GO) deploy/ci/live.sh $(LIVE)

race: ## the tests with the race detector and in random order
	$(GO) test -race -short -shuffle=on $(PKG)

fuzz: ## each fuzz target for FUZZTIME
	@GO=$(GO) FUZZTIME=$(FUZZTIME) deploy/ci/fuzz.sh

proto: ## the control API's Go code from wire/control/v1/haulback.proto; needs protoc
	@GO=$(GO) deploy/ci/proto.sh

proto-accept: ## record additions to the control API; refuses whatever else changed
	$(GO) test ./wire/control/v1 -count=1 -run '^TestOnlyAdditions$$' -accept

bench: bench-programs ## haulback beside rsync, bdsync, nbdcopy and qemu-img on 4 GiB, on disk and in memory: tables and plots under docs/bench; 50 minutes, 13 GiB of disk, 9 of memory
	@deploy/bench/bench.sh --out docs/bench $(BENCH)

bench-quick: bench-programs ## the same on 1 GiB with fewer rounds and peers, under out/bench; two minutes
	@deploy/bench/bench.sh --quick --out $(OUT)/bench $(BENCH)

bench-programs: programs
	CGO_ENABLED=0 $(GO) build $(BUILD) -o bin/ ./cmd/haulbench

bench-go: ## the Go benchmarks; pipe into benchstat
	$(GO) test -run '^$$' -bench . -benchmem $(PKG)

bench-micro: ## benchmarks of single parts of the data path, six times each; pipe into benchstat
	$(GO) test -run '^$$' -bench . -count 6 ./bench/micro

cover: ## statement coverage by function, in out/cover.txt
	@mkdir -p $(OUT)
	$(GO) test -short -coverpkg=./... -coverprofile=$(OUT)/cover.out $(PKG)
	$(GO) tool cover -func=$(OUT)/cover.out >$(OUT)/cover.txt
	@tail -n 1 $(OUT)/cover.txt

clean: ## remove what was built
	rm -rf bin $(OUT)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24
	@echo
	@echo '  HAULBACK_DEMO_DIR   where the demos make their directory; 5 GiB (default /var/tmp)'
	@echo '  HAULBACK_DEMO_RATE  how fast the first pass of make demo may be on the wire (default 6MiB)'
	@echo '  HAULBACK_BENCH_DIR  where make bench keeps its images (default /var/tmp/haulback-bench)'
	@echo '  BENCH="..."         more arguments of haulbench, as in BENCH="--cases 1pct --peers haulback,rsync --on cold"'
	@echo '  HAULBACK_DEMO_VM    the same as VM="REPLICA.img:ORIGINAL.img ..."; raw images, copied and never changed'
