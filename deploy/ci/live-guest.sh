#!/bin/bash
# What live.sh runs within its virtual machine, as root, and then powers it off. Lines
# that begin with "live: " are for the one who waits outside.
exec >/dev/ttyS0 2>&1 </dev/null
export LC_ALL=C
failed=0
say() { echo "live: $*"; }
# want WHAT COMMAND... says whether COMMAND succeeds.
want() {
  local what=$1
  shift
  if "$@" >/root/out 2>&1; then say "ok: $what"; else failed=1; say "WRONG: $what: $*"; cat /root/out; fi
}
# within SECONDS COMMAND... waits until COMMAND succeeds.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do ((SECONDS < end)) || return 1; sleep 0.5; done
}
property() { systemctl show -p "$1" --value "${2:-haulbackd}"; }
is() { [[ $(property "$1" "${3:-haulbackd}") == "$2" ]]; }
says() { local text=$1; shift; "$@" 2>&1 | grep -F -- "$text"; }
fails() { ! "$@"; }
as() { runuser -u haulback -G disk -- "$@"; }
desk() { haulback --state-dir /root/desk "$@"; }
journal() { journalctl -u haulbackd --no-pager -o cat "$@"; }
copy() { desk copy "$@" /root/src.img haulback://127.0.0.1:7420/disk; }

want "the package is installed" dpkg -i /root/haulback.deb
want "and nothing runs" is ActiveState inactive
want "socket buffers are set" [ "$(sysctl -n net.core.rmem_max)" = 16777216 ]
echo 'net.core.rmem_max = 33554432' >/etc/sysctl.d/50-own.conf
sysctl -q -p /etc/sysctl.d/50-own.conf
want "it is installed again" dpkg -i /root/haulback.deb
want "and an administrator's own value stays" [ "$(sysctl -n net.core.rmem_max)" = 33554432 ]
config=/etc/haulback/haulbackd.toml
printf '[[export]]\nname = "disk"\nuri = "block:///dev/vdb"\nrole = "target"\npeers = ["desk"]\n' >>$config
want "it starts" systemctl enable --now haulbackd
want "its sockets were handed over" says 'passed="quic tls control"' journal
want "root is refused what the daemon could not read" says "belongs to user haulback" haulback peer add "$(desk peer id)" --name desk
want "the daemon is paired" as haulback peer add "$(desk peer id)" --name desk
want "the desk is paired" desk peer add "$(as haulback peer id)" --name home --address 127.0.0.1:7420
want "it is let in" within 20 desk probe haulback://127.0.0.1:7420/disk
want "selfcheck is content" as haulback selfcheck
want "selfcheck without the unit's group asks the daemon" says "as the daemon opens it" runuser -u haulback -- haulback selfcheck

mkdir /etc/systemd/system/haulbackd.service.d
printf '[Service]\nDeviceAllow=\nDeviceAllow=block-sd rw\n' >/etc/systemd/system/haulbackd.service.d/d.conf
systemctl daemon-reload && systemctl restart haulbackd
want "selfcheck sees a device that systemd closes" says "the daemon cannot: open /dev/vdb: operation not permitted" as haulback selfcheck
rm -r /etc/systemd/system/haulbackd.service.d
systemctl daemon-reload && systemctl restart haulbackd && systemctl reset-failed haulbackd

truncate -s 256M /root/src.img
dd if=/dev/urandom of=/root/src.img conv=notrunc bs=1M count=64 seek=10 status=none
want "a disk is copied" copy
want "and equal" cmp /root/src.img /dev/vdb
want "the journal has the run's field" says '"RUN"' journalctl -u haulbackd -o json
want "status has the daemon" says "/run/haulback/control.sock: ready" haulback status
want "a reload" systemctl reload haulbackd

dd if=/dev/urandom of=/root/src.img bs=1M count=128 conv=notrunc status=none
copy --rate 4MiB --retry 3m >/root/copy 2>&1 &
going=$!
want "STATUS= has the rate" within 60 says "left" property StatusText
want "a restart in mid-copy" systemctl restart haulbackd
want "an upgrade in mid-copy" dpkg -i /root/haulback.deb
want "the copy goes on and ends well" wait $going
want "it was resumed" grep -q "resumed" /root/copy
want "and is equal" cmp /root/src.img /dev/vdb

systemctl reset-failed haulbackd
kill -STOP "$(property MainPID)"
want "the watchdog restarts what does not answer" within 90 is NRestarts 1
want "it runs again" within 30 is SubState running
systemctl reset-failed haulbackd
kill -KILL "$(property MainPID)"
want "so does what was killed" within 30 is NRestarts 1
within 30 is SubState running

sed -i 's/^role = /rol = /' $config
want "a reload with a mistake fails" fails systemctl reload haulbackd
want "and changes nothing" is ActiveState active
want "a start with a mistake fails" fails systemctl restart haulbackd
sleep 8
want "and is not tried again" is ActiveState failed
want "the journal has the line" says "haulbackd.toml:22:1: unknown key export.rol; did you mean role?" journal
for _ in 1 2 3 4 5 6 7 8 9 10; do # somebody looks what is wrong, and starts it by that
  timeout 3 haulback status --plain --socket /run/haulback/control.sock >/dev/null 2>&1
done
sed -i 's/^rol = /role = /' $config
sleep 11
want "mended, it starts, whoever has knocked" systemctl start haulbackd
want "and its sockets are open" timeout 20 haulback status --plain --socket /run/haulback/control.sock

echo 'name = "c"' >>/etc/haulback/controller.toml
want "the controller starts" systemctl start haulback-controller
want "the mover's exposure is 1.5" says "exposure level for haulbackd.service: 1.5" systemd-analyze security --no-pager haulbackd.service
want "the controller's is 1.3" says "exposure level for haulback-controller.service: 1.3" systemd-analyze security --no-pager haulback-controller.service
/var/lib/dpkg/info/haulback.prerm remove
want "a removal stops it" is ActiveState inactive
/var/lib/dpkg/info/haulback.postinst abort-remove
want "and is taken back" is ActiveState active
want "the package is purged" dpkg -P haulback
want "nothing of it runs" fails pgrep haulbackd
want "keys and journals are left" [ -e /var/lib/haulback/identity.key ]
((failed)) || say "all is well"
sync
systemctl poweroff --force --force
