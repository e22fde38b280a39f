# What the demonstrations share: to be sourced by bash, not to be run.
#
# Whoever sources it may set log_lines, and has: bin (the programs), work (its
# directory), pids (what it started: name -> process ID), began, say, note, die,
# need_tools, make_work, at, quiet, start_daemon, stop. Everything that is started
# is ended by its process ID, and everything that is made is removed, also on
# failure and on Ctrl-C.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin" # mkfs.ext4 is not in every user's path

bin=$(cd "${HAULBACK_BIN:-$(dirname "${BASH_SOURCE[0]}")/../../bin}" && pwd)
began=$SECONDS
work=
declare -A pids=() # what we started: name -> process ID

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
  printf '\nDEMO FAILED: %s\n' "$*" >&2
  exit 1
}

# cleanup ends our own processes, by ID, and removes our own directory.
cleanup() {
  local status=$? name log
  trap - EXIT INT TERM HUP
  for name in "${!pids[@]}"; do
    kill -CONT "${pids[$name]}" 2>/dev/null || true
    kill -TERM "${pids[$name]}" 2>/dev/null || true
  done
  for name in "${!pids[@]}"; do
    await_end "${pids[$name]}" || kill -KILL "${pids[$name]}" 2>/dev/null || true
  done
  if [[ -n $work ]]; then
    if ((status != 0 && status != 130 && status != 143)); then # not for a signal to us
      for log in "$work"/*.log; do
        [[ -s $log ]] && printf -- '--- end of %s\n%s\n' "${log##*/}" "$(tail -n "${log_lines:-15}" "$log")" >&2
      done
    fi
    rm -rf -- "$work"
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'printf "\nDEMO FAILED: %s, line %d: exit code %d\n" "${BASH_SOURCE[0]}" "$LINENO" "$?" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# await_end waits up to 12 s for a process to end.
await_end() {
  local i
  for ((i = 0; i < 120; i++)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

# at runs haulback as one site and shows the command and what it prints.
at() {
  local site=$1
  shift
  printf '   %s$ haulback %s\n' "$site" "${*//$work\//}"
  "$bin/haulback" --state-dir "$work/$site/state" "$@" 2>&1 | sed -u "s#$work/##g; s/^/      /"
}

# quiet is at without the show.
quiet() {
  local site=$1
  shift
  "$bin/haulback" --state-dir "$work/$site/state" "$@"
}

# need_tools TOOL... installs what is missing, as root on Debian.
need_tools() {
  local missing=() tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if ((${#missing[@]})); then
    note "installing e2fsprogs, diffutils and curl for ${missing[*]}"
    [[ $EUID == 0 ]] || die "${missing[*]}: not found; as root run: apt-get install e2fsprogs diffutils curl"
    apt-get install -qq -y e2fsprogs diffutils curl >/dev/null 2>&1 ||
      { apt-get update -qq && apt-get install -qq -y e2fsprogs diffutils curl >/dev/null; }
  fi
  [[ -x $bin/haulback && -x $bin/haulbackd && -x $bin/haulback-sim ]] || die "$bin: no programs there; run: make all"
}

# make_work MIB makes our directory, where so much is free.
make_work() {
  local base=${HAULBACK_DEMO_DIR:-/var/tmp} free
  [[ -d $base ]] || die "HAULBACK_DEMO_DIR=$base: no such directory"
  base=$(cd "$base" && pwd)
  free=$(df -Pm "$base" | awk 'NR == 2 {print $4}')
  ((free > $1)) || die "$base has $free MiB free; set HAULBACK_DEMO_DIR to a directory with $1 MiB"
  ((${#base} <= 60)) || die "$base: the path is too long for the sockets in it; set HAULBACK_DEMO_DIR to one of at most 60 characters"
  work=$(mktemp -d "$base/haulback-demo.XXXXXX")
}

check_fs() {
  e2fsck -fn "$1" >"$work/e2fsck.out" 2>&1 || die "${1#"$work"/} is no clean file system: $(tail -n 5 "$work/e2fsck.out")"
}

# edit runs a script of debugfs on an image: it writes into the file system without a mount.
edit() {
  debugfs -w -f "$1" "$2" >/dev/null 2>"$work/debugfs.out" || true # its exit code says little
  if grep -v '^debugfs 1' "$work/debugfs.out" | grep -q .; then die "debugfs: $(tail -n 3 "$work/debugfs.out")"; fi
}

mib() { echo $((${1:-0} >> 20)); }

# start_daemon starts haulbackd of a site and waits until it listens, at $address.
start_daemon() {
  local site=$1 i
  : >"$work/$site.log"
  "$bin/haulbackd" run --config "$work/$site/haulbackd.toml" 2>>"$work/$site.log" &
  pids[$site]=$!
  for ((i = 0; i < 200; i++)); do
    address=$(sed -n 's/.*"msg":"haulbackd ready".*"listen":"\([^"]*\)".*/\1/p' "$work/$site.log")
    [[ -n $address ]] && return
    kill -0 "${pids[$site]}" 2>/dev/null || die "haulbackd of $site ended: $(tail -n 3 "$work/$site.log")"
    sleep 0.05
  done
  die "haulbackd of $site does not listen after 10 s"
}

# crash kills a process of ours as a power failure does.
crash() {
  { kill -KILL "${pids[$1]}"; wait "${pids[$1]}"; } 2>/dev/null || true
  unset "pids[$1]"
}

# stop ends a process of ours in order.
stop() {
  kill -TERM "${pids[$1]}"
  wait "${pids[$1]}" || die "$1 ended with exit code $?"
  unset "pids[$1]"
}
