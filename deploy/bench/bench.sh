#!/usr/bin/env bash
# Installs what haulback is compared with, and runs haulbench with the arguments
# given: "make bench" and "make bench-quick". As root, on Debian.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
cd "$(dirname "$0")/../.."

declare -A package=([rsync]=rsync [nbdkit]=nbdkit [nbdcopy]=libnbd-bin [nbdinfo]=libnbd-bin [qemu-img]=qemu-utils [qemu-nbd]=qemu-utils
  [certtool]=gnutls-bin [b3sum]=b3sum [socat]=socat [fio]=fio [mke2fs]=e2fsprogs [cmp]=diffutils)
declare -A install=()
for tool in "${!package[@]}"; do
  command -v "$tool" >/dev/null || install[${package[$tool]}]=1
done
if ((${#install[@]})); then
  if [[ $EUID != 0 ]]; then
    echo "not root: run apt-get install ${!install[*]}" >&2
    exit 1
  fi
  echo "installing ${!install[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -qq -y --no-install-recommends "${!install[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${!install[@]}" >/dev/null; }
fi
# Debian has no package of bdsync: who wants it in the comparison builds it
# from github.com/rolffokkens/bdsync and puts it into the PATH.

# haulbench mounts a tmpfs of many GiB and unmounts it at its end. In a mount
# namespace of its own nothing stays of it if there is no such end, after kill -9.
alone=()
if unshare --mount true 2>/dev/null; then
  alone=(unshare --mount)
fi
exec "${alone[@]}" bin/haulbench "$@"
