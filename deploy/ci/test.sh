#!/usr/bin/env bash
# Everything that has to be green, on a fresh Debian 12 as root with Go 1.26.
# Two runs of the tests: all of them with the race detector and in random order,
# the simulations short; then without it and at full length those that are another
# test then. In the end every test that passed in neither is named with its reason.
set -euo pipefail
: "${GO:=go}"
export GO LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
cd "$(dirname "$0")/../.."
out=$PWD/out
mkdir -p "$out"
rm -f "$out"/*.tests
began=$SECONDS

# step NAME COMMAND... says how long the command took; the first failure ends it all.
step() {
  local name=$1 at=$SECONDS
  shift
  printf '== %s\n' "$name"
  "$@" || { printf '\nFAILED: %s (make test, after %d s)\n' "$name" $((SECONDS - began)) >&2; exit 1; }
  printf '   done in %d s\n' $((SECONDS - at))
}

# The heavy simulations run under the race detector with few seeds (-short); the
# search for planted bugs and the crash points run thousands of them and are left to
# the second run.
race() {
  { CGO_ENABLED=1 "$GO" test -race -short -shuffle=on -timeout 15m -skip '^(TestBugsAreFound|TestEveryCrashPoint|TestRestoreCrashPoints)$' -json ./... || true; } |
    "$out/testlist" -record "$out/race.tests"
}
# Packages in which nobody asks whether the run is short or raced have had all of
# theirs: what such a test skips for another reason, the list in the end names.
full() {
  local path dir packages=()
  while read -r path dir; do
    if grep -qsE 'testing\.Short\(\)|^//go:build !?race' "$dir"/*.go; then packages+=("$path"); fi
  done < <("$GO" list -f '{{.ImportPath}} {{.Dir}}' ./...)
  { "$GO" test -shuffle=on -timeout 15m -json "${packages[@]}" || true; } | "$out/testlist" -record "$out/full.tests"
}
build() {
  local arch
  for arch in amd64 arm64; do
    echo "   linux/$arch"
    CGO_ENABLED=0 GOOS=linux GOARCH=$arch "$GO" build -trimpath -tags grpcnotrace -o "$out/$arch/" ./cmd/haulback ./cmd/haulbackd ./cmd/haulback-sim
  done
}
# The VDDK worker needs cgo. Built without, it has to say so and why it stops.
worker() {
  local out_text code=0
  echo "   haulback-vddk with cgo"
  CGO_ENABLED=1 "$GO" build -trimpath -o "$out/haulback-vddk" ./cmd/haulback-vddk && "$out/haulback-vddk" --version
  echo "   haulback-vddk without cgo"
  CGO_ENABLED=0 "$GO" build -trimpath -o "$out/haulback-vddk-nocgo" ./cmd/haulback-vddk
  out_text=$("$out/haulback-vddk-nocgo" --version 2>&1) || code=$?
  [[ $code == 10 && $out_text == *"built without cgo"* ]] || { printf 'exit code %d, said: %s\n' "$code" "$out_text" >&2; return 1; }
}

printf '%s, %d CPUs, load %s\n' "$("$GO" version)" "$(nproc)" "$(cut -d' ' -f1 /proc/loadavg)"
step "tools and modules" bash -c 'deploy/ci/prepare.sh && "$GO" mod download && "$GO" build -o out/testlist ./cmd/internal/testlist'
step "format, vet, staticcheck, module files" deploy/ci/check.sh
step "programs without cgo for two architectures" build
step "the VDDK worker" worker
step "tests with the race detector, random order, short simulations" race
step "tests at full length" full
step "skipped tests" "$out/testlist" -skips deploy/ci/skips.txt "$out/race.tests" "$out/full.tests"
printf '\nOK: make test, %d s\n' $((SECONDS - began))
