#!/usr/bin/env bash
# Runs the hooks with stand-ins for the commands of LVM, ZFS, ssh and nbdkit: in which order they ask for what, and
# that a failure leaves nothing frozen and nothing behind. Says nothing about the real ones.
# shellcheck disable=SC2016 # what the stand-ins are to expand
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LOG=$work/log SPARESITE_HOOKS=$work/hooks SPARESITE_VM=files SPARESITE_SOCKETS=$work/sockets WORK=$work
mkdir "$work/bin" "$work/hooks"
export PATH=$work/bin:$PATH

stand_in() {
    { echo '#!/bin/bash'; cat; } >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
# hook FOLDER before|after → the log of commands, in one line; its exit code in $code
hook() {
    : >"$LOG"
    code=0
    SPARESITE_HOOK=$2 "$here/$1/hook.sh" >"$work/out" 2>&1 || code=$?
}
expect() {
    local said
    said=$(paste -sd'|' "$LOG")
    [[ $said == "$1" ]] || { echo "hooks: $2: expected"; echo "  $1"; echo "it was"; echo "  $said"; cat "$work/out"; exit 1; }
    [[ $code == "${3:-0}" ]] || { echo "hooks: $2: ended with $code"; cat "$work/out"; exit 1; }
} >&2

# What the last hook told the gateway of its disks.
claims() {
    local said
    said=$(grep '^consistency ' "$work/out" || true)
    [[ $said == "${1:+consistency $1}" ]] || { echo "hooks: expected the claim ${1:-of nothing}, it was: $said"; exit 1; }
} >&2

for name in freeze thaw; do stand_in $name <<<'echo '$name' >>"$LOG"; [[ ! -e $WORK/fail-'$name' ]]'; done

# LVM: a volume is a file that holds its origin.
stand_in lvs <<<'for last; do :; done; f=$WORK/lv-${last//\//_}; [[ -e $f ]] || exit 5; if [[ $1 == --noheadings ]]; then cat "$f"; fi'
stand_in lvremove <<<'for last; do :; done; echo "lvremove $last" >>"$LOG"; rm "$WORK/lv-${last//\//_}"'
stand_in lvcreate <<'S'
while (($#)); do case $1 in --name) name=$2; shift ;; esac; last=$1; shift; done
echo "lvcreate $name" >>"$LOG"
[[ ! -e $WORK/fail-$name ]] || exit 5
echo "  ${last##*/}" >"$WORK/lv-${last%%/*}_$name"
S
echo 'VOLUMES="vg0/a vg0/b" FREEZE=freeze THAW=thaw' >"$work/hooks/files.conf"
hook lvm before; expect 'freeze|lvcreate sparesite-a|lvcreate sparesite-b|thaw' 'lvm before'
claims file-system
hook lvm before; expect 'lvremove vg0/sparesite-a|lvremove vg0/sparesite-b|freeze|lvcreate sparesite-a|lvcreate sparesite-b|thaw' 'lvm before, after a kill'
touch "$work/fail-thaw"
hook lvm after; expect 'thaw|lvremove vg0/sparesite-a|lvremove vg0/sparesite-b' 'lvm after, nothing was frozen'
rm "$work/fail-thaw"
hook lvm after; expect 'thaw' 'lvm after, again'
touch "$work/fail-sparesite-b"
hook lvm before; expect 'freeze|lvcreate sparesite-a|lvcreate sparesite-b|lvremove vg0/sparesite-a|thaw' 'lvm, a snapshot fails' 1
rm "$work/fail-sparesite-b"; touch "$work/fail-freeze"
hook lvm before; expect 'freeze|thaw' 'lvm, the freeze fails' 1
claims ''
rm "$work/fail-freeze"; touch "$work/fail-thaw"
hook lvm before; expect 'freeze|lvcreate sparesite-a|lvcreate sparesite-b|thaw|lvremove vg0/sparesite-a|lvremove vg0/sparesite-b' 'lvm, the thaw fails' 1
rm "$work/fail-thaw"; echo '  other' >"$work/lv-vg0_sparesite-a"
hook lvm after; expect 'thaw' 'lvm, a volume of somebody else' 1
echo 'VOLUMES="vg0/c vg0/d" FREEZE=none' >"$work/hooks/files.conf"
hook lvm before; expect '' 'lvm, two volumes and no freeze' 1
echo 'VOLUMES="vg0/c" FREEZE=none' >"$work/hooks/files.conf"
hook lvm before; expect 'lvcreate sparesite-c' 'lvm, no freeze'
claims crash
hook lvm after; expect 'lvremove vg0/sparesite-c' 'lvm after, no freeze'

# ZFS: a name is a line of a file, with its origin.
touch "$work/zfs"
stand_in zfs <<'S'
for last; do :; done
case $1 in
list) grep -q "^$last " "$WORK/zfs" ;;
get) sed -n "s|^$last ||p" "$WORK/zfs" ;;
snapshot) shift; echo "snapshot $*" >>"$LOG"; [[ ! -e $WORK/fail-snapshot ]] || exit 1; for name; do echo "$name -" >>"$WORK/zfs"; done ;;
destroy) echo "destroy $2" >>"$LOG"; sed -i "\|^$2 |d" "$WORK/zfs" ;;
esac
S
echo 'DATASETS="tank/vms tank/more" FREEZE=freeze THAW=thaw' >"$work/hooks/files.conf"
hook zfs before; expect 'freeze|snapshot tank/vms@sparesite tank/more@sparesite|thaw' 'zfs before'
claims file-system
hook zfs after; expect 'thaw|destroy tank/vms@sparesite|destroy tank/more@sparesite' 'zfs after'
echo 'DATASETS=tank/vms FREEZE=none' >"$work/hooks/files.conf"
hook zfs before; expect 'snapshot tank/vms@sparesite' 'zfs, no freeze'
claims crash
hook zfs after; expect 'destroy tank/vms@sparesite' 'zfs after, no freeze'
echo 'DATASETS="tank/vms tank/more" FREEZE=freeze THAW=thaw' >"$work/hooks/files.conf"
touch "$work/fail-snapshot"
hook zfs before; expect 'freeze|snapshot tank/vms@sparesite tank/more@sparesite|thaw' 'zfs, the snapshot fails' 1
echo 'ZVOLS=tank/a DATASETS=pool/b FREEZE=none' >"$work/hooks/files.conf"
hook zfs before; expect '' 'zfs, two pools' 1
echo 'tank/sparesite-a tank/other@x' >"$work/zfs"; echo 'ZVOLS=tank/a FREEZE=none' >"$work/hooks/files.conf"
hook zfs after; expect '' 'zfs, a volume of somebody else' 1

# ESXi: a snapshot comes and goes a moment after it was asked for. nbdkit only leaves its number.
stand_in ssh <<'S'
for last; do :; done
case $last in
*snapshot.get*)
    echo 'Get Snapshot:'
    if [[ -e $WORK/foreign ]]; then printf -- '|-ROOT\n--Snapshot Name        : by hand\n--Snapshot Id        : 3\n'; fi
    if [[ -e $WORK/snapshot ]]; then printf -- '|-ROOT\n--Snapshot Name        : sparesite\n--Snapshot Id        : 7\n'; fi ;;
*snapshot.create*) echo "$last" >>"$LOG"; touch "$WORK/snapshot" ;;
*snapshot.remove*) echo "$last" >>"$LOG"; rm "$WORK/snapshot" ;;
*) echo "$last" >>"$LOG" ;;
esac
S
stand_in nbdkit <<<'echo "nbdkit ${*: -1}" >>"$LOG"; [[ ! -e $WORK/fail-nbdkit ]]'
echo 'HOST=root@esxi1 VMID=12 DISKS=(ds/db/db ds/db/db_1)' >"$work/hooks/files.conf"
create='vim-cmd vmsvc/snapshot.create 12 sparesite sparesite 0 1' remove='vim-cmd vmsvc/snapshot.remove 12 7'
hook vmware before; expect "$create|nbdkit user=root|nbdkit user=root" 'vmware before'
claims file-system
hook vmware before; expect "$remove|$create|nbdkit user=root|nbdkit user=root" 'vmware before, after a kill'
hook vmware after; expect "$remove" 'vmware after'
hook vmware after; expect '' 'vmware after, again'
echo 'HOST=root@esxi1 VMID=12 DISKS=(ds/db/db) QUIESCE=0' >"$work/hooks/files.conf"
hook vmware before; expect "${create% 1} 0|nbdkit user=root" 'vmware, not quiesced'
claims crash
hook vmware after; expect "$remove" 'vmware after, not quiesced'
echo 'HOST=root@esxi1 VMID=12 DISKS=(ds/db/db ds/db/db_1)' >"$work/hooks/files.conf"
touch "$work/fail-nbdkit"
hook vmware before; expect "$create|nbdkit user=root|$remove" 'vmware, nbdkit fails' 1
touch "$work/foreign"
hook vmware before; expect '' 'vmware, a snapshot of somebody else' 1

echo 'HOST=hv1 NAME="db 1"' >"$work/hooks/files.conf"
ps='powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "C:\sparesite\checkpoint.ps1" -Hook'
hook hyper-v before; expect "$ps before -Name \"db 1\"" 'hyper-v before'
claims file-system
hook hyper-v after; expect "$ps after -Name \"db 1\"" 'hyper-v after'
echo "HOST=hv1 NAME='db\"; rm'" >"$work/hooks/files.conf"
hook hyper-v before; expect '' 'hyper-v, a name that needs quoting' 1
echo "hooks: all hold, with stand-ins"
