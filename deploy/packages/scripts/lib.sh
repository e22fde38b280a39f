#!/bin/sh
# Begins every script of the packages; the rest is what follows.
#
# Nothing is enabled or started, ever: a daemon that is not configured has nothing to
# do. One that runs is restarted by an upgrade, and its copies resume. Without a running
# systemd (a chroot, an image that is built, DPKG_ROOT) only files are looked after.

services='haulbackd.service haulback-controller.service'
sockets='haulbackd.socket haulbackd-tls.socket haulbackd-control.socket haulback-controller.socket'

# running: systemd is there, and manages this root.
running() { [ -z "${DPKG_ROOT-}" ] && [ -d /run/systemd/system ]; }

reload_units() {
  if running; then systemctl daemon-reload || :; fi
}

# apply_sysctl sets what commands outside the units need for their sockets. PID 1 reads
# it at boot only.
apply_sysctl() {
  # By key and not by file: an administrator's own file may set more.
  if running && [ -x /lib/systemd/systemd-sysctl ]; then
    /lib/systemd/systemd-sysctl --prefix=/net/core/rmem_max --prefix=/net/core/wmem_max || :
  fi
}

# make_users also makes the directories below /run.
make_users() {
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} haulback.conf || return
  else
    echo "haulback: systemd-sysusers is not here: make the users of /usr/lib/sysusers.d/haulback.conf by hand" >&2
  fi
  if command -v systemd-tmpfiles >/dev/null; then
    systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create haulback.conf || :
  fi
}

# restart_one NAME CONFIGURATION STATE restarts a service that runs. Where the new
# program does not take the configuration the old one goes on: a stop would be for good.
restart_one() {
  systemctl --quiet is-active "$1.service" || return 0
  if STATE_DIRECTORY=$3 /usr/bin/haulbackd config check --config "$2"; then
    # Debian's way asks policy-rc.d first.
    if command -v deb-systemd-invoke >/dev/null; then
      deb-systemd-invoke try-restart "$1.service" || :
    else
      systemctl try-restart "$1.service" || :
    fi
  else
    echo "haulback: $1.service IS NOT RESTARTED and goes on with the old program: the new one does not take $2. Mend it, then: systemctl restart $1" >&2
  fi
}

# main_pids are the daemons that run, a line each: the unit and the process. After a
# stop that failed systemd does not know the process any more.
main_pids() {
  for unit in $services; do
    pid=$(systemctl show --property=MainPID --value "$unit" 2>/dev/null) || continue
    if [ "${pid:-0}" -gt 0 ]; then echo "$unit $pid"; fi
  done
}

# tell_alive LINES says which of main_pids did not end: a disk that hangs holds it.
tell_alive() {
  printf '%s\n' "$1" | while read -r unit pid; do
    if [ -n "$pid" ] && [ -d "/proc/$pid" ]; then
      echo "haulback: $unit DID NOT STOP: process $pid goes on and holds its disks; see: ps -o stat,wchan,cmd $pid" >&2
    fi
  done
}

# What a removal has stopped, for one that is taken back.
stopped=/run/haulback.stopped

note_active() {
  # shellcheck disable=SC2086
  systemctl list-units --state=active --plain --no-legend $sockets $services 2>/dev/null |
    while read -r unit _; do echo "$unit"; done >$stopped || :
}

start_noted() {
  if running && [ -s $stopped ]; then
    while read -r unit; do systemctl start "$unit" || :; done <$stopped
    rm -f $stopped
  fi
}

restart_running() {
  running || return 0
  restart_one haulbackd /etc/haulback/haulbackd.toml /var/lib/haulback
  restart_one haulback-controller /etc/haulback/controller.toml /var/lib/haulback-controller
}

# tell_left says what no script removes: who loses a key has to pair again, who loses
# a journal or a failback's record does not know any more which disk is whole.
tell_left() {
  for dir in /etc/haulback /var/lib/haulback /var/lib/haulback-controller; do
    # Not an empty one: dpkg itself removes it, when this has ended.
    for file in "${DPKG_ROOT-}$dir"/* "${DPKG_ROOT-}$dir"/.[!.]*; do
      if [ -e "$file" ] || [ -h "$file" ]; then
        left="${left-} $dir"
        break
      fi
    done
  done
  if [ -n "${left-}" ]; then
    echo "haulback: left in place, with the users haulback and haulback-controller:$left"
    echo "haulback: keys, pairings, journals of half copied disks and records of open failbacks are there. When none of it is needed: rm -r$left"
  fi
}

