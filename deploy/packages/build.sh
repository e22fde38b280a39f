#!/usr/bin/env bash
# Builds the packages of the commit that is checked out: .deb and .rpm, with what
# each program is built from and a list of checksums.
#
#   build.sh [DIR [ARCH...]]     default: out/packages amd64 arm64
#
# Two builds of one commit with one Go (and one gcc, for haulback-vddk) are equal, in
# whatever directory and by whomever. So nothing of the machine may get in: times are
# those of the commit, modes and owners stand in the .yaml files, the environment's
# settings of Go count for nothing.
set -euo pipefail
export LC_ALL=C TZ=UTC
: "${GO:=go}"
cd "$(dirname "$0")/../.."
readonly nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
readonly packages=$PWD/deploy/packages
mkdir -p "${1:-out/packages}"
out=$(cd "${1:-out/packages}" && pwd)
shift || true
(($#)) || set -- amd64 arm64

die() { printf 'packages: %s\n' "$*" >&2; exit 1; }
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || die "no commit here: packages are of a commit; build them in a clone"
export SOURCE_DATE_EPOCH GOFLAGS='' GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0 CGO_ENABLED=0 CGO_CFLAGS=-O2
unset GOOS GOARCH CGO_CPPFLAGS CGO_LDFLAGS CC
# "go env -w" counts where a variable is empty. Where modules come from may stand there.
for setting in GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOTOOLCHAIN GOPATH GOMODCACHE GOCACHE; do
  export "$setting=$("$GO" env "$setting")"
done
export GOENV=off GOWORK=off
[[ $("$GO" env GOHOSTOS) == linux ]] || die "packages are built on Linux"
host=$("$GO" env GOHOSTARCH)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/new"

# compile DIR PROGRAM... as the Makefile does, but stripped: versions stay.
compile() {
  local dir=$1
  shift
  "$GO" build -trimpath -tags grpcnotrace -buildvcs=true -ldflags='-s -w' -o "$dir/" "${@/#/./cmd/}"
}

# licenses PROGRAM... prints those of all modules that are linked, as they want it.
licenses() {
  local name version dir files
  echo 'What the programs of this package contain besides haulback, each under its licence.'
  printf '\n\n======== Go %s\n\n' "$("$GO" env GOVERSION)" && cat "$("$GO" env GOROOT)/LICENSE"
  "$GO" list -tags grpcnotrace -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' "${@/#/./cmd/}" |
    sort -u >"$work/modules"
  while read -r name version dir; do
    mapfile -t files < <(find "$dir" -maxdepth 1 -type f \( -iname 'LICEN[CS]E*' -o -iname 'COPYING*' -o -iname 'NOTICE*' \) | sort)
    ((${#files[@]})) || { echo "packages: $name $version has no licence" >&2; return 1; }
    printf '\n\n======== %s %s\n\n' "$name" "$version" && cat "${files[@]}"
  done <"$work/modules"
}

# documents stages what is the same for every architecture, with a program of this one.
documents() {
  local program shell
  mkdir -p "$work/common/man" "$work/common/completion"
  for program in haulback haulbackd; do
    "$work/$host/bin/$program" man --dir "$work/common/man"
    for shell in bash zsh fish; do
      "$work/$host/bin/$program" completion "$shell" >"$work/common/completion/$program.$shell"
    done
  done
  gzip -9n "$work"/common/man/*.1
  gzip -9nc CHANGELOG.md >"$work/common/changelog.gz"
  licenses haulback haulbackd | gzip -9n >"$work/common/haulback.licenses.gz"
}

# changelog NAME prints Debian's, whose one entry is this version.
changelog() {
  printf '%s (%s-1) unstable; urgency=medium\n\n  * What changed is in /usr/share/doc/haulback/changelog.gz.\n\n -- %s  %s\n' \
    "$1" "$VERSION" 'haulback maintainers <haulback@users.noreply.github.com>' "$(date -Rd "@$SOURCE_DATE_EPOCH")"
}

# pack NAME PROGRAM... makes both packages of the programs for $ARCH.
pack() {
  local name=$1 stage=$work/$ARCH script program format
  shift
  ln -sfn "$PWD" "$stage/src"
  ln -sfn "$work/common" "$stage/common"
  for program in "$@"; do
    "$GO" run ./cmd/internal/sbomfile "$stage/bin/$program" >"$stage/$program.cdx.json"
    cp "$stage/$program.cdx.json" "$work/new/${program}_${VERSION}_linux_$ARCH.cdx.json"
  done
  for script in "$packages/scripts/$name".*; do
    cat "$packages/scripts/lib.sh" "$script" >"$stage/${script##*/}"
  done
  changelog "$name" | gzip -9n >"$stage/changelog.Debian.gz"
  for format in deb rpm; do
    (cd "$stage" && "$work/tools/nfpm" package --config "$packages/$name.yaml" --packager "$format" --target "$work/new/" >"$work/nfpm.log" 2>&1) || { cat "$work/nfpm.log" >&2; return 1; }
  done
}

# worker packs haulback-vddk: VMware has its library for amd64 only, and calling it
# takes a C compiler. The C library has to be as new as what it was linked with.
worker() {
  if [[ $ARCH != amd64 ]]; then return; fi
  if [[ $host != amd64 ]] || ! command -v gcc >/dev/null || ! command -v objdump >/dev/null; then
    echo "packages: haulback-vddk IS LEFT OUT: it needs gcc and objdump, on linux/amd64" >&2
    return
  fi
  CGO_ENABLED=1 compile "$work/$ARCH/bin" haulback-vddk
  GLIBC=$(objdump -T "$work/$ARCH/bin/haulback-vddk" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
  export GLIBC=${GLIBC#GLIBC_}
  CGO_ENABLED=1 licenses haulback-vddk | gzip -9n >"$work/common/haulback-vddk.licenses.gz"
  pack haulback-vddk haulback-vddk
}

# Of a program of a version go asks the network, again each time, whose module it is;
# what is in the module cache knows. It is checked against the checksum database as ever.
GOBIN=$work/tools GOPROXY=file://$("$GO" env GOMODCACHE)/cache/download "$GO" install "$nfpm" 2>/dev/null ||
  GOBIN=$work/tools "$GO" install "$nfpm"
for ARCH in "$host" "$@"; do
  [[ -d $work/$ARCH ]] || GOARCH=$ARCH compile "$work/$ARCH/bin" haulback haulbackd
done
VERSION=$("$work/$host/bin/haulback" version --json | sed 's/.*"version":"\([^"]*\)".*/\1/')
[[ $VERSION != devel ]] || die "Go records no commit here (a linked worktree, or a directory that git does not trust): build in a clone"
export VERSION
documents
for ARCH in "$@"; do
  export ARCH
  echo "   haulback $VERSION for linux/$ARCH"
  pack haulback haulback haulbackd
  worker
done

# All at once, and none of an earlier build.
rm -f "$out"/haulback*.{deb,rpm,cdx.json} "$out/SHA256SUMS"
(cd "$work/new" && sha256sum -- *) >"$work/SHA256SUMS"
cp "$work"/new/* "$work/SHA256SUMS" "$out/"
