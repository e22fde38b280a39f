#!/usr/bin/env bash
# Demonstrates haulback on one machine: two sites, two daemons, two 2 GiB disks
# with real file systems that differ by about 3 %, and a power failure half way.
#
# Run it with "make demo-disk". It needs about 4 GiB in $HAULBACK_DEMO_DIR (default
# /var/tmp), and no root once mkfs.ext4 and debugfs are installed. Everything it
# starts is stopped by its process ID, and everything it makes is removed, also
# on failure and on Ctrl-C.
source "$(dirname "$0")/lib.sh"

readonly disk_mib=2048   # size of each disk
readonly files_mib=384   # real files on it
readonly change_mib=60   # what the replica wrote since the failover: about 3 %
readonly rate=5MiB       # on the wire; slow enough that there is a half way
readonly job_mib=40     # what the job of the last act repairs

# make_original makes the production disk: an ext4 file system with real files.
make_original() {
  local list=$work/list
  find /usr -xdev -type f -size +32k -size -24000k -printf '%s usr/%P\n' 2>/dev/null |
    awk -v max=$((files_mib << 20)) '{n = $1; $1 = ""; if (sum + n < max) {sum += n; print substr($0, 2)}}' >"$list"
  tar -C / -cf - --files-from="$list" 2>"$work/tar.log" | tar -C "$work/tree" -xf -
  truncate -s "${disk_mib}M" "$work/home/original.img"
  mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d "$work/tree" "$work/home/original.img" 2>"$work/mkfs.log"
  note "home/original.img: $disk_mib MiB, ext4, $(wc -l <"$list") files of this machine's /usr, $(du -sm "$work/tree" | cut -f1) MiB of them"
}

# make_replica makes the copy that served the users meanwhile: files were
# removed, replaced and added. debugfs writes into the image without a mount.
make_replica() {
  cp --sparse=always "$work/home/original.img" "$work/dr/replica.img"
  mkdir "$work/new"
  { tar -C "$work/tree" -cf - . 2>/dev/null || true; } | head -c $((change_mib << 20)) | split -b 10M - "$work/new/orders-"
  local removed=0 replaced=0 script=$work/debugfs path
  while read -r path; do
    echo "rm /$path"
    if ((removed < 5)); then
      removed=$((removed + 1))
      continue
    fi
    { cat "$work/tree/$path"; date; } >"$work/new/file-$replaced"
    echo "write $work/new/file-$replaced /$path"
    replaced=$((replaced + 1))
  done < <(grep -v '[ "]' "$work/list" | awk 'NR % 40 == 0' | head -n 25) >"$script"
  echo "mkdir /orders" >>"$script"
  for path in "$work"/new/orders-*; do
    echo "write $path /orders/${path##*/}" >>"$script"
  done
  edit "$script" "$work/dr/replica.img"
  rm -rf "$work/tree" "$work/new"
  check_fs "$work/dr/replica.img"
  note "dr/replica.img: the same disk, after it has served the users for a while: $removed files removed,"
  note "$replaced replaced, $change_mib MiB of new files; e2fsck finds its file system clean"
}

# configure writes a daemon's configuration: NAME LISTEN EXPORT ROLE WHO.
configure() {
  cat >"$work/$1/haulbackd.toml" <<TOML
listen    = "$2"
state_dir = "$work/$1/state"

[[export]]
name = "$3"
uri  = "file://$work/$1/$3.img"
role = "$4"
$5
TOML
  "$bin/haulbackd" config check --config "$work/$1/haulbackd.toml" >/dev/null
}

# number prints a field of the last line of a message type in the JSON of the copy.
number() {
  { grep "\"message_type\":\"$1\"" "$work/copy.json" || true; } | tail -n 1 | sed -n "s/.*\"$2\":\"\{0,1\}\([^,\"}]*\).*/\1/p"
}

# events prints what the copy has said since the last call: a lost link, a resume.
events_seen=0
events() {
  local all
  all=$(sed -n 's/.*"message_type":"event".*"text":"\(.*\)"}/   event: \1/p' "$work/copy.json")
  [[ -n $all ]] || return 0
  tail -n "+$((events_seen + 1))" <<<"$all"
  events_seen=$(wc -l <<<"$all")
}

# watch prints where the copy stands until its written bytes reach $1 MiB, or it ends.
watch() {
  local limit=$1 last=-1 written
  while kill -0 "${pids[copy]}" 2>/dev/null; do
    events
    written=$(mib "$(number status written)")
    if ((written != last)); then
      note "$(printf '%4d of %d MiB compared, %2d MiB sent, %2d MiB safe on the target' \
        "$(mib "$(number status compared)")" "$disk_mib" "$(mib "$(number status sent)")" "$written")"
      last=$written
    fi
    ((written >= limit)) && return 0
    sleep 0.1
  done
  return 0
}

say "haulback demo: a disk comes home. $("$bin/haulback" version)"
need_tools mkfs.ext4 debugfs e2fsck curl cmp
make_work $((2 * disk_mib + 1024))
mkdir "$work"/{dr,home,desk,tree}
note "everything is in $work, and is removed at the end"

say "1. Two disks of $disk_mib MiB"
make_original
make_replica
note "how much is there to bring home? verify compares and changes nothing; exit code 4: they differ"
code=0
at desk verify "$work/dr/replica.img" "$work/home/original.img" >"$work/verify.out" || code=$?
((code == 4)) || die "verify of two different disks: exit code $code and not 4: $(tail -n 3 "$work/verify.out")"
head -n 7 "$work/verify.out"
differ=$(sed -n 's/^ *differed *\([0-9.]* MiB ([0-9.]* %)\).*/\1/p' "$work/verify.out")
[[ -n $differ ]] || die "verify does not say how much differs: $(tail -n 3 "$work/verify.out")"

say "2. Two sites, dr and home, and an operator at a desk: each has a key of its own; they are paired"
note "(dr\$ stands for a shell at dr; the demo adds --state-dir to keep the three apart on one machine)"
declare -A id=()
for site in dr home desk; do
  id[$site]=$(quiet "$site" peer id)
done
at dr peer id
at dr peer add "${id[home]}" --name home
at dr peer add "${id[desk]}" --name desk
at home peer add "${id[dr]}" --name dr
at home peer add "${id[desk]}" --name desk
configure dr 127.0.0.1:0 replica source $'peers     = ["desk"]\noperators = ["desk"]'
configure home 127.0.0.1:0 original target 'peers = ["dr", "desk"]'
start_daemon dr
dr=$address
start_daemon home
home=$address
at desk peer add "${id[dr]}" --name dr --address "$dr"
at desk peer add "${id[home]}" --name home --address "$home"
note "haulbackd runs at dr ($dr, process ${pids[dr]}) and at home ($home, process ${pids[home]})"

say "3. The operator tells dr to bring the disk home; at most $rate/s, so that there is time to watch"
printf '   desk$ haulback copy haulback://%s/replica haulback://%s/original --rate %s\n' "$dr" "$home" "$rate"
copy_began=$SECONDS
HAULBACK_PROGRESS_FPS=10 quiet desk --json copy "haulback://$dr/replica" "haulback://$home/original" \
  --rate "$rate" >"$work/copy.json" 2>"$work/copy.log" &
pids[copy]=$!
watch $((change_mib / 2))
before=$(mib "$(number status written)")
kill -0 "${pids[copy]}" 2>/dev/null || die "the copy ended before half of it was written"

say "4. Half way, the daemon at home is killed: kill -9 ${pids[home]}"
crash home
note "its own journal, read from the disk of the dead daemon:"
at home probe "$work/home/original.img" | tee "$work/probe.out"
grep -q Inconsistent "$work/probe.out" || die "the half copied disk is not marked Inconsistent"
cmp -s "$work/dr/replica.img" "$work/home/original.img" && die "the disks are equal already: nothing was interrupted"
note "the disk is marked: nobody can take this half copy for a good one"

say "5. The daemon at home starts again; nobody touches the copy, it goes on by itself"
sed -i "s/^listen .*/listen    = \"$home\"/" "$work/home/haulbackd.toml"
start_daemon home
note "haulbackd runs at home again (process ${pids[home]})"
watch $((disk_mib * 2))
wait "${pids[copy]}" || die "the copy ended with exit code $?: $(tail -n 1 "$work/copy.log")"
unset 'pids[copy]'
events
state=$(number summary state) sent=$(mib "$(number summary sent)") had=$(mib "$(number summary had)")
reconnects=$(number summary reconnects)
note "the copy ended after $((SECONDS - copy_began)) s: $state. $before MiB were safe at home when the operator last looked before"
note "the crash; $had MiB were found there again and not sent twice. $sent MiB were sent in all, as $(mib "$(number summary sent_wire)") MiB on the wire"
[[ $state == Verified ]] || die "the target is $state and not Verified"
((reconnects > 0)) || die "no reconnect was counted"
((had > 0)) || die "nothing was resumed"
((sent <= change_mib * 11 / 10 + 96)) || die "$sent MiB were sent for $change_mib MiB of changes"

say "6. Is it true? Three answers that do not ask each other"
at desk verify "haulback://$dr/replica" "haulback://$home/original"
at desk probe "haulback://$home/original" | tee "$work/probe.out"
grep -q Verified "$work/probe.out" || die "the journal at home does not say Verified"
cmp "$work/dr/replica.img" "$work/home/original.img" || die "cmp: the disks differ"
note "cmp dr/replica.img home/original.img: all $disk_mib MiB are the same, byte by byte"
check_fs "$work/home/original.img"
note "e2fsck home/original.img: the file system is clean"

say "7. The other way in: a backup server hands dr a job, and dr is killed in the middle of it"
note "meanwhile $job_mib MiB of the disk at home were overwritten by mistake; the job repairs that"
head -c $((job_mib << 20)) /dev/urandom | dd of="$work/home/original.img" bs=1M seek=64 conv=notrunc status=none
at dr job submit --id repair-1 export:replica "haulback://$home/original?peer=home" --rate "$rate"
job() { # what curl sees of the job: the first value of a field
  curl -sS --unix-socket "$work/dr/state/control.sock" "http://dr/haulback.v1.Jobs/Get?encoding=json&connect=v1&message=%7B%22id%22%3A%22repair-1%22%7D" |
    grep -o "\"$1\": *\"[^\"]*" | head -n 1 | sed 's/.*"//' || true
}
for ((i = 0; i < 300; i++)); do
  (($(mib "$(job durableBytes)") >= job_mib / 4)) && break
  sleep 0.1
done
note "curl asks the control socket: phase $(job phase), $(mib "$(job durableBytes)") MiB are safe at home"
[[ $(job phase) == PHASE_IN_PROGRESS ]] || die "the job is $(job phase) and not in progress: $(job text)"
crash dr
note "dr was killed (kill -9); it starts again, and nobody tells it to go on"
start_daemon dr
at dr job watch repair-1
[[ $(job phase) == PHASE_COMPLETED ]] || die "the job is $(job phase) and not completed: $(job text)"
cmp "$work/dr/replica.img" "$work/home/original.img" || die "cmp: the disks differ"
note "cmp dr/replica.img home/original.img: the same, byte by byte"
note "what dr has recorded of it, each line chained to the one before:"
at dr audit verify

say "8. Both daemons are stopped in order (SIGTERM)"
for site in dr home; do
  stop "$site"
  note "$site: stopped, exit code 0"
done

say "What you saw, in $((SECONDS - began)) s"
note "Two disks of $disk_mib MiB differed in $differ. Both sides read their own disk; only what differed crossed the"
note "network. The target's daemon was killed half way and started again; the copy went on from its last checkpoint."
note "A job that a backup server had handed in went on by itself when the daemon that ran it was killed."
note "At the end every byte that was written had been read back from the disk and compared: Verified, and cmp agrees."
