#!/usr/bin/env bash
# Generates the control API from its .proto file; with --check, only says
# whether what is committed is what comes out. Needs Debian's protoc.
set -euo pipefail
export LC_ALL=C
: "${GO:=go}"
cd "$(dirname "$0")/../.."
readonly dir=wire/control/v1
readonly go_plugin=google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
readonly connect_plugin=connectrpc.com/connect/v2/cmd/protoc-gen-connect-go@v2.0.2

# libprotobuf-dev has the .proto files of durations and times
if ! command -v protoc >/dev/null || [[ ! -e /usr/include/google/protobuf/duration.proto ]]; then
  need=(protobuf-compiler libprotobuf-dev)
  [[ $EUID == 0 ]] || { echo "protoc or its own .proto files are missing; run apt-get install ${need[*]}" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -qq -y --no-install-recommends "${need[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${need[@]}" >/dev/null; }
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# protoc runs programs, not commands
plugin() { printf '#!/bin/sh\nexec %q run %q\n' "$GO" "$2" >"$tmp/$1" && chmod +x "$tmp/$1"; }
plugin protoc-gen-go "$go_plugin"
plugin protoc-gen-connect-go "$connect_plugin"
mkdir "$tmp/out"
protoc --plugin="$tmp/protoc-gen-go" --plugin="$tmp/protoc-gen-connect-go" -I "$dir" \
  --go_out="$tmp/out" --go_opt=paths=source_relative \
  --connect-go_out="$tmp/out" --connect-go_opt=paths=source_relative,package_suffix= haulback.proto

if [[ ${1-} != --check ]]; then
  cp "$tmp"/out/*.go "$dir/"
  exit
fi
for f in "$tmp"/out/*.go; do
  # which protoc it was is in a comment, and no reason to fail
  diff -u <(grep -v '^//.*protoc  *v' "$dir/${f##*/}") <(grep -v '^//.*protoc  *v' "$f") ||
    { echo "$dir/${f##*/} is not what haulback.proto makes; run: make proto" >&2; exit 1; }
done
