#!/usr/bin/env bash
# Installs the package in a virtual machine with a systemd that runs, and drives it:
# what systemd-analyze and scratch roots cannot show. Before a release, by hand: it takes
# five minutes, 3 GiB of disk and Debian's mirrors, as root on Debian. "make live".
#
#   live.sh [DIR]     keeps the machine's files in DIR, to look at and to be quick again
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
cd "$(dirname "$0")/../.."

die() { printf 'live: %s\n' "$*" >&2; exit 1; }
[[ $EUID == 0 ]] || die "only root can make the machine's disk"
command -v debootstrap >/dev/null && command -v qemu-system-x86_64 >/dev/null && command -v mkfs.ext4 >/dev/null ||
  die "run: apt-get install debootstrap qemu-system-x86 e2fsprogs"
dir=${1:-}
if [[ -z $dir ]]; then
  dir=$(mktemp -d /var/tmp/haulback-live.XXXXXX)
  trap 'rm -rf "$dir"' EXIT
fi
mkdir -p "$dir"

deploy/packages/build.sh "$dir/packages" amd64
if [[ ! -e $dir/root/sbin/init ]]; then
  echo "   a Debian with systemd"
  debootstrap --variant=minbase --include=systemd,systemd-sysv,linux-image-cloud-amd64,iproute2,procps,udev,dbus bookworm "$dir/root" >"$dir/debootstrap.log" 2>&1 ||
    { tail -n 5 "$dir/debootstrap.log" >&2; die "debootstrap failed"; }
fi
cp "$dir"/packages/haulback_*_amd64.deb "$dir/root/root/haulback.deb"
install -m 0755 deploy/ci/live-guest.sh "$dir/root/root/live"
cat >"$dir/root/etc/systemd/system/live.service" <<'UNIT'
[Unit]
After=basic.target network.target
[Service]
Type=oneshot
ExecStart=/root/live
UNIT
install -d "$dir/root/etc/systemd/system/multi-user.target.wants"
ln -sf ../live.service "$dir/root/etc/systemd/system/multi-user.target.wants/"

echo "   boot"
rm -f "$dir/system.img" "$dir/disk.img"
mkfs.ext4 -q -d "$dir/root" "$dir/system.img" 1600M
truncate -s 256M "$dir/disk.img"
# Without KVM, which not every machine that has its device can use.
timeout 900 qemu-system-x86_64 -machine accel=tcg -m 1024 -smp 2 -display none -monitor none -serial "file:$dir/console" -no-reboot -net none \
  -kernel "$dir"/root/boot/vmlinuz-*-cloud-amd64 -initrd "$dir"/root/boot/initrd.img-*-cloud-amd64 \
  -append 'console=ttyS0 root=/dev/vda rw quiet systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service' \
  -drive "file=$dir/system.img,if=virtio,format=raw,cache=unsafe" -drive "file=$dir/disk.img,if=virtio,format=raw,cache=unsafe" </dev/null &
machine=$!
wait "$machine" || die "the machine did not end by itself: $(tail -n 5 "$dir/console")"
tr -d '\r' <"$dir/console" | sed -n 's/^live: /   /p'
grep -q '^live: all is well' "$dir/console" || { tail -n 40 "$dir/console" >&2; die "something is not as it should be"; }
