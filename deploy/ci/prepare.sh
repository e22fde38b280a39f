#!/usr/bin/env bash
# Sees to it that the tools of the tests are there, on Debian as root: a C
# compiler for the race detector, and what makes and attaches real disks.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

: "${GO:=go}"
command -v "$GO" >/dev/null || { echo "$GO: not found; install Go 1.26 or later from https://go.dev/dl" >&2; exit 1; }

declare -A package=([gcc]=gcc [git]=git [cmp]=diffutils [losetup]=mount [mount]=mount [mkfs.ext4]=e2fsprogs [debugfs]=e2fsprogs
  [mkfs.xfs]=xfsprogs [mkfs.btrfs]=btrfs-progs [qemu-img]=qemu-utils [nbdkit]=nbdkit [nbdcopy]=libnbd-bin [groff]=groff-base [openssl]=openssl
  [curl]=curl [lz4]=lz4 [b3sum]=b3sum [systemd-analyze]=systemd [protoc]=protobuf-compiler [grpc_python_plugin]=protobuf-compiler-grpc
  [objdump]=binutils [rpm]=rpm)
declare -A install=()
for tool in "${!package[@]}"; do
  command -v "$tool" >/dev/null || install[${package[$tool]}]=1
done
# gcc alone has no C library headers
[[ -e /usr/include/stdlib.h ]] || install[libc6-dev]=1
# protoc alone has not the .proto files of times and durations
[[ -e /usr/include/google/protobuf/duration.proto ]] || install[libprotobuf-dev]=1
# the client in a second language; Debian's Python, whatever python3 the PATH has
/usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null || install[python3-grpcio]=1 install[python3-protobuf]=1
# the validator that is not ours, of the configuration's schema
/usr/bin/python3 -c 'import jsonschema' 2>/dev/null || install[python3-jsonschema]=1
# Of prometheus only promtool: the package would start a server on this machine.
fetch_promtool() (
  dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT && chmod 755 "$dir" && cd "$dir" || return
  apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; } || return
  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && install usr/bin/promtool /usr/local/bin/promtool
)
if ! command -v promtool >/dev/null && [[ $EUID == 0 ]]; then
  echo "   installing promtool"
  fetch_promtool >/dev/null 2>&1 || echo "promtool cannot be had: ALERT RULES AND METRICS ARE NOT CHECKED BY IT" >&2
fi
# Much Perl for one test: what cannot be had is said, and no reason to stop.
if ! command -v lintian >/dev/null && [[ $EUID == 0 ]]; then
  echo "   installing lintian"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends lintian; } >/dev/null 2>&1 ||
    echo "lintian cannot be had: THE DEBIAN PACKAGES ARE NOT CHECKED BY IT" >&2
fi
((${#install[@]})) || exit 0
echo "   installing ${!install[*]}"
if [[ $EUID != 0 ]]; then
  echo "not root: run apt-get install ${!install[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y --no-install-recommends "${!install[@]}" >/dev/null 2>&1 ||
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${!install[@]}" >/dev/null; }
