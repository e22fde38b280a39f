#!/usr/bin/env bash
# Demonstrates a whole failback on one machine: two simulated vCenters whose disks
# have bytes, two real daemons that are paired over QUIC, a VM that comes home while
# its users go on writing, a crash of the controller half way, and the way back.
#
# Run it with "make demo". It needs about 4 GiB in $HAULBACK_DEMO_DIR (default
# /var/tmp), and no root once mkfs.ext4, debugfs, e2fsck, curl and cmp are
# installed. Everything it starts is stopped by its process ID, and everything it
# makes is removed, also on failure and on Ctrl-C.
#
# With disks of your own, raw images, which are copied and never changed:
#   make demo VM="replica0.img:original0.img replica1.img:original1.img"
# HAULBACK_DEMO_RATE is how fast pass 1 may be on the wire (default 6MiB).
source "$(dirname "$0")/lib.sh"

readonly rate=${HAULBACK_DEMO_RATE:-6MiB} # slow enough that there is a half way
readonly own=${HAULBACK_DEMO_VM:-}
readonly kill_at=10     # MiB of pass 1 on the wire, then the controller is killed
readonly live_mib=8     # of the file that the users go on writing to
readonly guest_rate=256 # KiB per second that they write
began_serving=0
live_disk=0 live_off=0 live_len=0 # where the guest writes

# ---- the disks

# files_of SKIP MIB copies files of this machine into the tree: MIB of them, after SKIP.
files_of() {
  rm -rf "$work/tree"
  mkdir "$work/tree"
  awk -v skip=$(($1 << 20)) -v max=$(($2 << 20)) '{
    n = $1; $1 = ""
    if ((sum += n) <= skip) next
    if (sum > skip + max) exit
    print substr($0, 2)}' "$work/list" >"$work/files"
  tar -C / -cf - --files-from="$work/files" 2>"$work/tar.out" | tar -C "$work/tree" -xf -
}

# changes NAME EVERY removes and replaces files of an image, every so many of
# them, and adds what stands in $work/new. The numbers are in $removed, $replaced.
changes() {
  local image=$1 every=$2 script=$work/debugfs path
  removed=0 replaced=0
  mkdir -p "$work/edited"
  while read -r path; do
    echo "rm /$path"
    if ((removed <= replaced / 4)); then
      removed=$((removed + 1))
      continue
    fi
    { cat "$work/tree/$path"; date; echo "$image"; } >"$work/edited/$replaced"
    echo "write $work/edited/$replaced /$path"
    replaced=$((replaced + 1))
  done < <(grep -v '[ "]' "$work/files" | awk -v n="$every" 'NR % n == n - 1' | head -n 20) >"$script"
  for path in "$work"/new/*; do
    [[ -e $path ]] && echo "write $path /${path##*/}"
  done >>"$script"
  edit "$script" "$work/$image"
  rm -rf "$work/edited" "$work/new"
}

# some MIB NAME makes a file of real data that the replica or the original gets.
some() {
  mkdir -p "$work/new"
  { tar -C "$work/tree" -cf - . 2>/dev/null || true; } | gzip -1 2>/dev/null | head -c $(($1 << 20)) >"$work/new/$2" || true
}

# make_disk NAME MIB SKIP FILES ADDED makes a disk of FILES MiB of files, and what
# became of it on either side after the failover.
make_disk() {
  local name=$1 size=$2 of_replica
  files_of "$3" "$4"
  truncate -s "${size}M" "$work/$name-original.img"
  mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d "$work/tree" "$work/$name-original.img" 2>"$work/mkfs.out"
  cp --sparse=always "$work/$name-original.img" "$work/$name-replica.img"
  some "$5" orders
  [[ $name != shop-1 ]] || head -c $((live_mib << 20)) /dev/urandom >"$work/new/live.db"
  changes "$name-replica.img" 9
  of_replica="$removed files removed, $replaced replaced, $5 MiB of new ones"
  some 3 last-day-at-home
  changes "$name-original.img" 31
  check_fs "$work/$name-replica.img"
  check_fs "$work/$name-original.img"
  note "$name: $size MiB, ext4 with $(wc -l <"$work/files") files. Since the failover, replica: $of_replica;"
  note "         original, on its last day: $removed files removed, $replaced replaced, 3 MiB of new ones"
}

# find_live finds where a file of the disk has its longest run of blocks.
find_live() {
  local size
  size=$(debugfs -R 'stats -h' "$1" 2>/dev/null | sed -n 's/^Block size: *//p')
  read -r live_off live_len < <(debugfs -R 'blocks /live.db' "$1" 2>/dev/null | tr -s ' ' '\n' | grep . | awk -v size="$size" '
    $1 != last + 1 {first = $1; run = 0}
    {last = $1; if (++run > most) {most = run; at = first}}
    END {print at * size, most * size}')
  ((live_len >= 1 << 20)) || die "the file system has no run of 1 MiB for a file of $live_mib MiB"
}

# own_disks takes the images that the user names.
own_disks() {
  local pair i=0 side path
  for pair in $own; do
    for side in replica original; do
      [[ $side == replica ]] && path=${pair%%:*} || path=${pair#*:}
      [[ $pair == *:* && -f $path && -r $path ]] || die "VM=\"$own\": $path: no file that can be read; write REPLICA.img:ORIGINAL.img for each disk"
      path=$(realpath "$path")
      [[ $path =~ ^[A-Za-z0-9_./+,@%-]+$ ]] || die "$path: letters, digits and ./_+,@%- only, please; give it another name"
      [[ $(head -c 4 "$path" | tr -d '\0') != QFI?* ]] || die "$path: a qcow2 image; convert it: qemu-img convert -O raw $path NEW.img"
      (($(stat -c %s "$path") % 512 == 0)) || die "$path: its size is no multiple of 512, so it is no image of a disk"
      ln -s "$path" "$work/shop-$i-$side.img"
    done
    note "shop-$i: replica ${pair%%:*}, original ${pair#*:}, $(mib "$(stat -Lc %s "$work/shop-$i-replica.img")") MiB"
    i=$((i + 1))
  done
  live_len=$(($(stat -Lc %s "$work/shop-0-replica.img") / 4096 * 4096))
  ((live_len > 4 << 20)) && live_off=$((live_len - (4 << 20))) live_len=$((4 << 20))
  live_disk=0
}

# ---- the two sites

# disks_of NAME SIDE prints the disks of a VM for the simulator's configuration.
disks_of() {
  local image
  for image in "$work/$1"-*-"$2.img"; do
    printf '[[vm.disk]]\nimage = "%s"\n' "$image"
  done
}

# start_sim starts the simulated vCenter of a site: SITE SIDE SUFFIX ON.
start_sim() {
  local site=$1 i vm
  {
    printf 'kind = "vcenter"\n[[datastore]]\nname = "%s-store"\ncapacity = "64GiB"\n' "$site"
    for vm in shop ledger; do
      printf '[[vm]]\nname = "%s%s"\ncpus = 2\nmemory = "512MiB"\non = %s\n' "$vm" "$3" "$4"
      disks_of "$vm" "$2"
    done
  } >"$work/$site/sim.toml"
  "$bin/haulback-sim" run --dir "$work/$site/sim" --config "$work/$site/sim.toml" >"$work/$site/sim.json" 2>"$work/sim-$site.log" &
  pids[sim-$site]=$!
  for ((i = 0; i < 600; i++)); do
    grep -q . "$work/$site/sim.json" && break
    kill -0 "${pids[sim-$site]}" 2>/dev/null || die "haulback-sim of $site ended: $(tail -n 3 "$work/sim-$site.log")"
    sleep 0.05
  done
  grep -q . "$work/$site/sim.json" || die "haulback-sim of $site does not serve after 30 s"
}

# of FILE FIELD prints a text of a line of JSON, the first with this name.
of() { { grep -o "\"$2\": *\"[^\"]*" "$1" || true; } | head -n 1 | sed 's/.*"//'; }

# ctl SITE PATH [JSON] does at the simulator what no client of vSphere can: be the guest.
ctl() {
  local answer
  answer=$(curl -sS --unix-socket "$work/$1/sim/control.sock" "http://sim/v1/$2" ${3:+-d "$3"}) || die "the simulator of $1 does not answer"
  [[ $answer != '{"error"'* ]] || die "the simulator of $1: $2: $answer"
  printf '%s\n' "$answer"
}

power() { ctl "$1" vms | sed 's/{"ref"/\n&/g' | grep "\"name\":\"$2\"" | grep -o '"power":"[^"]*' | sed 's/.*"//'; }

# flats SITE VM [SNAPSHOT] prints the files with the bytes of a VM's disks.
flats() { ctl "$1" "vms/$2/files${3:+?snapshot=$3}" | grep -o '"flat":"[^"]*' | sed 's/.*":"//'; }

# snapshots SITE VM prints the snapshots that a VM has.
snapshots() { ctl "$1" vms | sed 's/{"ref"/\n&/g' | grep "\"name\":\"$2\"" | grep -o '"snapshots":\[[^]]*' | grep -o '[a-zA-Z]*-[0-9]*' || true; }

# same WHAT FILES FILES dies unless each file of the one list is the other's, byte by byte.
same() {
  local what=$1 i one=($2) two=($3) total=0
  ((${#one[@]} > 0 && ${#one[@]} == ${#two[@]})) || die "$what: ${#one[@]} and ${#two[@]} disks"
  for ((i = 0; i < ${#one[@]}; i++)); do
    cmp -- "${one[i]}" "${two[i]}" || die "$what: disk $i differs"
    total=$((total + $(stat -c %s "${one[i]}")))
  done
  note "cmp: $what: ${#one[@]} disk(s), $(mib $total) MiB, the same byte by byte"
}

host_of() {
  cat <<TOML
[[host]]
name          = "$1"
url           = "$(of "$work/$1/sim.json" url)"
user          = "$(of "$work/$1/sim.json" user)"
password_file = "$(of "$work/$1/sim.json" password_file)"
thumbprint    = "$(of "$work/$1/sim.json" thumbprint_sha256)"
mover         = "$2"
export        = "$1-disks"

TOML
}

export_of() {
  cat <<TOML
listen    = "${2:-127.0.0.1:0}"
state_dir = "$work/$1/state"

[[export]]
name        = "$1-disks"
role        = "host"
datastores  = { $1-store = "$work/$1/sim/$1-store" }
TOML
}

# ---- the failback, looked at from outside

# look writes what the controller says of a failback to $work/status.json.
look() { quiet prod --json failback status "$1" >"$work/status.json" 2>"$work/status.out"; }
# sum FIELD adds a counter of all passes of all disks.
sum() { { grep -o "\"$1\":[0-9]*" "$work/status.json" || true; } | awk -F: '{n += $2} END {print n + 0}'; }
expect() {
  look "$1" || die "haulback failback status $1: $(cat "$work/status.out")"
  [[ $(of "$work/status.json" state) == "$2" ]] || die "$1 is in state $(of "$work/status.json" state), not $2: $(of "$work/status.json" text)"
}

# brief leaves the table of steps out of a status: each was a line before.
brief() { sed -u '/^ *Steps$/,/^ *Type next$/{/^ *Type next$/!d}'; }

# begin NAME ARGUMENT... runs a command of the operator at prod that looks on: on a
# terminal with bars, else with lines. finish waits for its end.
begin() {
  local name=$1 out=$work/lines
  shift
  printf '   prod$ haulback %s\n' "$*"
  if [[ -t 1 ]]; then
    reader=
    "$bin/haulback" --state-dir "$work/prod/state" "$@" </dev/null &
  else
    rm -f "$out"
    mkfifo "$out" # nobody else may have its other end, or the reader waits for ever
    sed -u "s#$work/##g; s/^/      /" <"$out" | brief &
    reader=$!
    "$bin/haulback" --state-dir "$work/prod/state" "$@" </dev/null >"$out" 2>&1 &
  fi
  pids[$name]=$!
}
finish() {
  local code=0
  wait "${pids[$1]}" || code=$?
  unset "pids[$1]"
  [[ -z $reader ]] || wait "$reader" || true
  return "$code"
}

# ---- the acts

say "haulback demo: a VM comes home. $("$bin/haulback" version)"
need_tools mkfs.ext4 debugfs e2fsck curl cmp
make_work 4096
mkdir "$work"/{prod,dr}
note "everything is in $work, and is removed at the end"

say "1. The disks of two VMs, as they are after a failover: both sides have changed since"
find /usr -xdev -type f -size +16k -size -8000k -printf '%s usr/%P\n' 2>"$work/find.out" >"$work/list" || true
if [[ -n $own ]]; then
  own_disks
else
  make_disk shop-0 512 0 128 24
  make_disk shop-1 256 128 48 16
  find_live "$work/shop-1-replica.img"
  live_disk=1
fi
make_disk ledger-0 128 192 32 8
rm -rf "$work/tree"

say "2. Two sites. Each has a vCenter, which is simulated but has true bytes, and a haulbackd beside its disks"
start_sim prod original '' false
start_sim dr replica -dr true
rm -f "$work"/{shop,ledger}-*.img
for site in prod dr; do
  note "vCenter of $site: $(of "$work/$site/sim.json" url), process ${pids[sim-$site]}"
done
note "(prod\$ stands for a shell at prod; the demo adds --state-dir to keep the two apart on one machine)"
declare -A id=()
for site in prod dr; do
  id[$site]=$(quiet "$site" peer id)
done
at dr peer add "${id[prod]}" --name prod
{ export_of dr; echo 'peers       = ["prod"]'; echo 'controllers = ["prod"]'; } >"$work/dr/haulbackd.toml"
"$bin/haulbackd" config check --config "$work/dr/haulbackd.toml" >/dev/null
start_daemon dr
at prod peer add "${id[dr]}" --name dr --address "$address"
{ export_of prod; printf '\n[controller]\nname = "demo"\n\n'; host_of prod self; host_of dr dr; } >"$work/prod/haulbackd.toml"
"$bin/haulbackd" config check --config "$work/prod/haulbackd.toml" >/dev/null
start_daemon prod
note "haulbackd of dr moves the disks there (process ${pids[dr]}). That of prod moves those of prod, and is the controller:"
note "the only one that talks to the vCenters (process ${pids[prod]}). They know each other by pinned keys, over QUIC."

say "3. The VM shop: which replica belongs to which original, and that the replica serves now"
at prod failback vm put shop --original prod/shop --replica dr/shop-dr
at prod failback failover shop
note "haulback powers nothing on or off for that. shop-dr is $(power dr shop-dr), shop is $(power prod shop)."

say "4. What would bringing it home do? A plan changes no disk; --measure reads a sample of both sides"
at prod failback plan shop --power-on --rate "$rate" --measure

say "5. It begins. The replica goes on serving its users, who go on writing, at $guest_rate KiB/s"
if [[ -z $own ]]; then
  note "(the guest writes into a file of its ext4, /live.db: $(mib "$live_len") MiB at byte $live_off of disk $live_disk)"
else
  note "(the guest writes random bytes into the last $(mib "$live_len") MiB of the copy of disk $live_disk; your image is only read)"
fi
note "Before the first byte is overwritten both VMs are marked as used by this run, the original gets a snapshot as"
note "its rollback point, and a mark that says inconsistent: nobody can take half of it for a good disk."
note "When $kill_at MiB are on their way, the controller and mover of prod is killed (kill -9 ${pids[prod]}). It starts again"
note "at once, and nobody tells it to go on."
churn=$(ctl dr vms/shop-dr/churn "{\"disk\":$live_disk,\"rate\":$((guest_rate << 10)),\"seed\":7,\"off\":$((live_off + 4096)),\"len\":$((live_len - 4096))}")
churn=$(grep -o 'churn-[0-9]*' <<<"$churn")
homeward=$SECONDS
printf '   prod$ haulback failback start shop --power-on --rate %s --yes --detach    (shows the plan again)\n' "$rate"
quiet prod failback start shop --power-on --rate "$rate" --yes --detach >"$work/start.out" 2>&1 || die "haulback failback start: $(tail -n 5 "$work/start.out")"
tail -n 2 "$work/start.out" | sed 's/^/      /'
begin watch failback watch shop
killed=
while kill -0 "${pids[watch]}" 2>/dev/null; do
  if look shop && (($(sum sent) >> 20 >= kill_at)) && [[ $(of "$work/status.json" activity) == syncing ]]; then
    killed="$(mib "$(sum sent)") MiB"
    crash prod
    start_daemon prod
    break
  fi
  sleep 0.2
done
finish watch || die "haulback failback watch ended with exit code $?"
expect shop ReadyToSwitch
if [[ -n $killed ]]; then
  note "A moment before the kill $killed of pass 1 had been sent. haulbackd that runs there now (process ${pids[prod]}) found"
  note "$(mib "$(sum had)") MiB durable from before the crash, and did not have them sent again."
else
  note "pass 1 was over before $kill_at MiB were on their way, so nothing was killed in the middle of it"
fi

say "6. The switch: the replica is powered off, what it wrote since comes home, and only then shop is powered on"
order="order 4711, paid at $(date +%T), a moment before the switch"
if [[ -z $own ]]; then
  ctl dr vms/shop-dr/write "{\"disk\":$live_disk,\"off\":$live_off,\"text\":\"$order\\n\"}" >/dev/null
  note "the last thing that the replica writes to /live.db: $order"
fi
begin switch failback switch shop
finish switch || die "haulback failback switch ended with exit code $?"
written=$(ctl dr "churns/$churn/stop" '{}' | grep -o '[0-9]*')
expect shop Failback
changed=$(sum changed) sent=$(sum sent)
((sent <= changed * 11 / 10 + (96 << 20))) || die "$(mib "$sent") MiB were sent, and $(mib "$changed") MiB differed"
note "In all passes $(mib "$changed") MiB differed, $(mib "$sent") MiB were sent, as $(mib "$(sum sent_wire)") MiB on the wire."
note "The guest of the replica wrote $((written >> 10)) KiB while it came home, $((SECONDS - homeward)) s. Now shop-dr is $(power dr shop-dr), shop is $(power prod shop)."

say "7. Is it true? Answers that do not ask haulback"
frozen=$(snapshots dr shop-dr)
[[ $(wc -w <<<"$frozen") == 1 ]] || die "the replica has the snapshots \"$frozen\" and not its protective one alone"
home=$(flats prod shop)
same "what the replica had when it was powered off ($frozen), and the disks of shop" "$(flats dr shop-dr "$frozen")" "$home"
if [[ -z $own ]]; then
  for flat in $home; do
    check_fs "$flat"
    note "e2fsck ${flat##*/}: the file system is clean"
  done
  flat=$(sed -n $((live_disk + 1))p <<<"$home")
  debugfs -R "dump /live.db $work/live.db" "$flat" 2>"$work/debugfs.out"
  grep -aqF "$order" "$work/live.db" || die "/live.db at home has not the last thing that the replica wrote: $order"
  note "/live.db, read from the ext4 at home, has this: $(grep -aoF "$order" "$work/live.db")"
  debugfs -R 'stat /last-day-at-home' "$flat" >"$work/debugfs.out" 2>&1
  grep -q 'File not found' "$work/debugfs.out" || die "/last-day-at-home is still there"
  note "/last-day-at-home, which only the old original had, is gone. Until the commit its rollback point still has it."
fi

say "8. It works at home: commit. The replica stays off, and keeps its protective snapshot as a restore point"
at prod failback commit shop --yes | brief
expect shop Ready
leftover=$(snapshots prod shop)
[[ -z $leftover ]] || die "shop still has $leftover"
[[ $(snapshots dr shop-dr) == "$frozen" && $(power dr shop-dr) == poweredOff ]] || die "shop-dr is $(power dr shop-dr), with $(snapshots dr shop-dr)"
note "shop-dr is $(power dr shop-dr) and has $frozen. shop is $(power prod shop) and has no snapshot left."
at prod failback record shop --out "$work/shop.json"
at prod record verify "$work/shop.json"
"$bin/haulback" record show "$work/shop.json" >"$work/record.txt" 2>&1 || die "haulback record show: $(tail -n 3 "$work/record.txt")"
note "$(wc -l <"$work/record.txt") lines of it: who decided what, each action on a host, each pass of each disk; some of them:"
grep -E '^(failback|decided|downtime|disk|  pass|overwritten)' "$work/record.txt" | sed 's/^/      /'
same "the disks of shop after the commit, and those of the replica" "$(flats dr shop-dr "$frozen")" "$(flats prod shop)"

say "9. Another VM, ledger, comes home too, and home does not work for it"
printf '   prod$ haulback %s\n' 'failback vm put ledger --original prod/ledger --replica dr/ledger-dr' 'failback failover ledger'
quiet prod failback vm put ledger --original prod/ledger --replica dr/ledger-dr >/dev/null
quiet prod failback failover ledger >/dev/null
mkdir "$work"/before
for site in prod dr; do
  vm=ledger
  [[ $site == dr ]] && vm=ledger-dr
  i=0
  for flat in $(flats "$site" "$vm"); do
    cp --sparse=always "$flat" "$work/before/$site-$i"
    i=$((i + 1))
  done
done
note "copies of the disks of both, made aside before, to compare with afterwards"
printf '   prod$ haulback failback start ledger --power-on --switch now --yes --detach\n'
quiet prod failback start ledger --power-on --switch now --yes --detach >"$work/start.out" 2>&1 || die "haulback failback start: $(tail -n 5 "$work/start.out")"
begin watch failback watch ledger
finish watch || die "haulback failback start ended with exit code $?"
expect ledger Failback
ctl prod vms/ledger/write '{"disk":0,"off":40000000,"len":1048576,"seed":1}' >/dev/null
note "ledger is $(power prod ledger) at home, and its guest has written 1 MiB of nonsense there. The operator wants it back:"
at prod failback undo ledger --yes | brief
expect ledger Failover
same "ledger at home, and the copy from before the failback" "$(flats prod ledger)" "$(ls "$work"/before/prod-*)"
same "its replica, and the copy from before the failback" "$(flats dr ledger-dr)" "$(ls "$work"/before/dr-*)"
[[ $(power dr ledger-dr) == poweredOn ]] || die "ledger-dr is $(power dr ledger-dr) and not powered on"
note "ledger-dr is $(power dr ledger-dr): it serves again. ledger is $(power prod ledger)."
at prod failback gc

say "10. All is stopped in order (SIGTERM)"
for name in prod dr sim-prod sim-dr; do
  stop "$name"
  note "$name: stopped, exit code 0"
done

say "What you saw, in $((SECONDS - began)) s"
note "Production was overwritten only after it had a rollback point and a mark. Only what differed crossed"
note "the network, while the replica served. ${killed:+The controller was killed half way, and went on by itself. }At the switch the rest"
note "came home, and shop was powered on after every byte that was written had been read back and compared: cmp agrees."
note "Commit ended it with a signed record. Undo took the other one back: production and replica to the byte."
