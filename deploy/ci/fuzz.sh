#!/usr/bin/env bash
# Runs each fuzz target for FUZZTIME. What it finds is in testdata/fuzz of the
# package, and fails every later test run until it is mended.
set -euo pipefail
: "${GO:=go}" "${FUZZTIME:=10s}"
cd "$(dirname "$0")/../.."
grep -rno --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file _ func; do
  name=${func#func }
  echo "== $name in $(dirname "$file"), $FUZZTIME"
  "$GO" test "$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "$FUZZTIME"
done
