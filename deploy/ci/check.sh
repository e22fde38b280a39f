#!/usr/bin/env bash
# Checks that need no run: format, vet, staticcheck, module files.
set -euo pipefail
: "${GO:=go}"
cd "$(dirname "$0")/../.."
readonly gofumpt=mvdan.cc/gofumpt@v0.12.0
readonly staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

echo "   what is kept"
while IFS= read -r -d '' f; do
  if [[ -f $f && $(stat -c %s "$f") -gt 1048576 ]]; then
    printf '%s: larger than 1 MiB; programs and disks are built, not kept\n' "$f" >&2
    exit 1
  fi
done < <(git ls-files -z)
echo "   gofumpt"
unformatted=$("$GO" run "$gofumpt" -l .)
if [[ -n $unformatted ]]; then
  printf 'gofumpt would change these; run: %s run %s -w .\n%s\n' "$GO" "$gofumpt" "$unformatted" >&2
  exit 1
fi
echo "   go vet"
"$GO" vet ./...
echo "   staticcheck"
"$GO" run "$staticcheck" ./...
echo "   go mod tidy, go mod verify"
"$GO" mod tidy -diff
"$GO" mod verify >/dev/null
echo "   generated code"
deploy/ci/proto.sh --check
