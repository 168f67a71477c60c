# make demo   the main job, with real traffic, on an empty machine with Go
# make test   everything: format, vet, lint, unit tests under -race, end to end
# make chaos  kills everything at random for five minutes; nothing may be lost
# make unnoticed  ends, reloads and upgrades daemons under 200 live connections; none may drop
# make month  a month of an operator on three real agents, day by day, on a clock that the test moves
# make soak   changes under live connections for two minutes; none may drop
# make vanished  lets clients of every kind vanish, and waits as long as the default times say
# make packages  deb, rpm and OCI image of both programs, with checksums, in dist/
# make source    a source archive with the modules in it, in dist/
# make bench  speed and memory, as ratios to a stock Xray in the same run
# make costs  the table of docs/performance.md: a stock Xray and sing-box beside the worker

GO      ?= go
VERSION ?= $(shell packaging/version.sh)
# The time of every file in packages: that of the last commit, in Unix seconds.
EPOCH   ?= $(shell cat EPOCH 2>/dev/null || git log -1 --format=%ct)
DIST    := dist
# What make packages makes, for which architectures, as Go names them.
ARCHES  ?= amd64,arm64
KINDS   ?= deb,rpm,rootfs
LDFLAGS := -s -w -X main.version=$(VERSION)
BIN     := bin
TOOL    := $(GO) tool -modfile=.ci/tools.mod
# Go's own packages of this module; the end-to-end tests run by themselves,
# without -race: they are other processes.
PACKAGES := $(shell $(GO) list ./... 2>/dev/null | grep -v internal/e2e)
# The tests of package xray take the longest, and wait most of the time: they need a third of a processor.
# They begin first, and unit runs two other packages beside them.
UNIT    := $(filter %/xray,$(PACKAGES)) $(filter-out %/xray,$(PACKAGES))
# SQLite is C that was translated to Go. The race detector and the checks of unsafe pointers make it
# six times as slow, and compressing packages four times. They find nothing of ours there, so these
# packages go without them.
NORACE  := compress/flate modernc.org/sqlite/lib modernc.org/libc modernc.org/memory
RACE    := -race $(foreach p,$(NORACE),-gcflags='$(p)=-race=false -d=checkptr=0')
# make vet looks at all packages. Without -vet=off, go test would look at them and at all that they import
# once more, in each of its configurations.
TESTS   := -vet=off
# RERUN=1, as .ci/run has it: where at most three tests fail, they run once more by themselves. A
# test that passes then is named as flaky at the end. A data race never runs again. The slowest tests
# are named too, since the run has a bound in time.
FLAKY    = $(BIN)/flaky-$@.txt
ifdef RERUN
gotest   = mkdir -p $(BIN) && rm -f $(FLAKY) && $(TOOL) gotestsum --format pkgname-and-test-fails --rerun-fails=1 --rerun-fails-max-failures=3 \
	--rerun-fails-run-root-test --rerun-fails-abort-on-data-race --rerun-fails-report $(FLAKY) --jsonfile-timing-events $(BIN)/tests-$@.json --packages '$(2)' -- $(TESTS) $(1) \
	&& { echo 'The slowest tests:'; $(TOOL) gotestsum tool slowest --jsonfile $(BIN)/tests-$@.json --threshold 15s | sed -n 1,15p; } \
	&& { test ! -s $(FLAKY) || { echo 'FLAKY: these tests failed, and passed by themselves. Mend them:'; cat $(FLAKY); }; }
else
gotest   = $(GO) test $(TESTS) $(1) $(2)
endif

.PHONY: all build demo test format fix vet lint unit e2e chaos month soak unnoticed vanished bench costs packages source sign clean

all: build

# Without cgo the programs are static: they run on any Linux, whatever its libc.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

demo:
	$(GO) run ./internal/demo

# make -j2 unit e2e runs both side by side, in two thirds of the time, where nothing else needs the processors.
test: format vet lint unit e2e

format:
	@out=$$($(TOOL) gofumpt -l .); test -z "$$out" || { echo "gofumpt differs: $$out (mend with: make fix)"; exit 1; }

fix:
	$(TOOL) gofumpt -w .

vet:
	$(GO) vet ./...

lint:
	$(TOOL) golangci-lint run ./...

unit:
	export CGO_ENABLED=1; $(call gotest,$(RACE) -p 3 -timeout 25m,$(UNIT))
	$(call gotest,-parallel 4 -timeout 10m -run 'Flood|OfEveryCarrier|KernelWireGuard|MKCPOutlives|OfPassedRequests|ConnectionsOfQUIC',./xray)

e2e:
	$(call gotest,-parallel 6 -timeout 40m,./internal/e2e)

# The chaos test for five minutes; make test has a short form of it. CHAOS_SEED
# makes it do what a printed seed did.
chaos:
	CHAOS_SECONDS=$${CHAOS_SECONDS:-300} $(GO) test -timeout 15m -count 1 -v -run TestChaos ./internal/e2e

# Every day of an operator's month; make test has a short form of it, of eleven days.
month:
	MONTH=whole $(GO) test -timeout 20m -count 1 -v -run TestOperatorsMonthOnAgents ./internal/e2e

# The soak test for just under two minutes; make test has a short form of it.
# SOAK_SEED makes the changes of a printed seed.
soak:
	SOAK_SECONDS=$${SOAK_SECONDS:-110} $(GO) test -timeout 5m -count 1 -v -run TestSoak ./internal/e2e

# The proofs that nobody notices the end of a daemon or an upgrade, with every protocol over every
# transport; make test has a short form of them. UNNOTICED_SEED repeats a run, UNNOTICED_ROWS (a regular
# expression) chooses protocols, and UNNOTICED_OLDER names an older build of node-agent to upgrade from.
unnoticed:
	UNNOTICED_ROUNDS=20 UNNOTICED_CONNECTIONS=7 $(GO) test ./internal/e2e -run TestUnnoticed -v -count=1 -timeout 120m

# Five minutes; make test has a form of it with short times.
vanished:
	VANISHED_AT_DEFAULTS=1 $(GO) test ./xray -run 'TestVanished.*AtDefaults' -v -count=1 -timeout 15m

bench:
	$(GO) test -run '^$$' -bench . -skip BenchmarkCost -benchtime 10x -timeout 60m ./xray ./xray/state ./store ./cmd/node-core ./cmd/node-core/internal/corestore ./cmd/node-core/internal/nodeapi ./cmd/node-core/internal/adminapi ./cmd/node-core/internal/rendered ./cmd/node-core/internal/sublink ./internal/e2e

# SINGBOX_BIN names a sing-box; without it, a stock Xray is compared alone. ROUNDS is how often each
# server does the work. PROTOCOLS is a
# regular expression for the protocols' names, for a part of the table.
ROUNDS    ?= 3
PROTOCOLS ?= .
costs:
	$(GO) test -run '^$$' -bench 'BenchmarkCost$$/($(PROTOCOLS))' -benchtime $(ROUNDS)x -timeout 60m ./internal/e2e

# RELEASE_URL is where the release will be, RELEASE_KEY minisign's public key (the line that
# begins with RW). Both become part of install.sh. MAINTAINER is who makes the packages, as
# 'Name <name@example.org>'.
packages:
	rm -rf $(DIST)
	$(GO) run ./internal/release -out $(DIST) -version '$(VERSION)' -epoch $(EPOCH) -url '$(RELEASE_URL)' -key '$(RELEASE_KEY)' -arch '$(ARCHES)' -kinds '$(KINDS)' -maintainer '$(MAINTAINER)'

source:
	packaging/source.sh $(DIST) '$(VERSION)' $(EPOCH)

# Signs the checksums with minisign's secret key in the file MINISIGN_KEY.
sign:
	minisign -S -s '$(MINISIGN_KEY)' -m $(DIST)/SHA256SUMS -t 'node-agent $(VERSION)'

clean:
	rm -rf bin $(DIST)
