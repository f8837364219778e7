#!/bin/sh
# UNTESTED on a machine with LVM. The before and after hook of a VM whose disks are logical volumes of
# this machine: snapshots under the fixed name sparesite-VOLUME, which the disk list of the VM names.
#
#   source = { disks = ["/dev/vg0/sparesite-files"], before = "/etc/sparesite/hooks/lvm.sh", after = "/etc/sparesite/hooks/lvm.sh" }
#
# /etc/sparesite/hooks/VM.conf:
#   VOLUMES="vg0/files vg0/files-data"
#   FREEZE="virsh domfsfreeze files"   # or "none"
#   THAW="virsh domfsthaw files"
#   SIZE="20%ORIGIN"                   # room for what the VM overwrites meanwhile; empty for thin volumes
#
# With FREEZE=none the point is what a power cut leaves, and is called so (crash); of one volume, as two would be of two
# instants.
set -eu

fail() { echo "$SPARESITE_VM: $*" >&2; exit 1; }
conf=${SPARESITE_HOOKS:-/etc/sparesite/hooks}/$SPARESITE_VM.conf
[ -r "$conf" ] || fail "$conf cannot be read"
VOLUMES='' FREEZE='' THAW='' SIZE=20%ORIGIN
# shellcheck source=/dev/null
. "$conf"
[ -n "$VOLUMES" ] || fail "VOLUMES is empty in $conf"

remove() {
    for volume in $VOLUMES; do
        ours=${volume%%/*}/sparesite-${volume##*/}
        lvs "$ours" >/dev/null 2>&1 || continue
        # Never a volume that is something else, whoever gave it this name.
        [ "$(lvs --noheadings -o origin "$ours" | tr -d ' ')" = "${volume##*/}" ] ||
            fail "$ours is no snapshot of $volume: it was not removed"
        lvremove --yes --quiet "$ours" >/dev/null
    done
}

snapshot() {
    for volume in $VOLUMES; do
        name=sparesite-${volume##*/}
        if [ -n "$SIZE" ]; then
            lvcreate --quiet --snapshot --permission r --extents "$SIZE" --name "$name" "$volume" >/dev/null || return
        else
            lvcreate --quiet --snapshot --permission r --setactivationskip n --name "$name" "$volume" >/dev/null || return
        fi
    done
}

# Of a `before` that was killed between freeze and thaw. Nothing is frozen after any other, whatever this says then. An agent
# that does not answer must not keep the snapshots: a hook has 120 s.
thaw_again() {
    [ -z "$THAW" ] || timeout 60 sh -c "$THAW" >/dev/null 2>&1 || true
}

case $SPARESITE_HOOK in
before)
    remove
    [ -n "$FREEZE" ] || fail "say FREEZE=\"...\" in $conf, or FREEZE=none"
    if [ "$FREEZE" = none ]; then
        # shellcheck disable=SC2086 # counted as words
        set -- $VOLUMES
        [ $# -eq 1 ] || fail "several volumes need a FREEZE: their snapshots are of different instants"
        snapshot || { remove; fail "no snapshot was made"; }
        echo "consistency crash"
        exit 0
    fi
    [ -n "$THAW" ] || fail "FREEZE without THAW in $conf"
    # Thawed whatever ends this script, also where the freeze failed halfway.
    trap 'sh -c "$THAW" >/dev/null 2>&1 || true' EXIT
    trap 'exit 1' HUP INT TERM
    sh -c "$FREEZE" >/dev/null || fail "the freeze failed: $FREEZE"
    snapshot || { remove; fail "no snapshot was made"; }
    trap - EXIT
    # What thawed by itself meanwhile was not frozen all the time: virsh and qm say so by failing.
    sh -c "$THAW" >/dev/null || { remove; fail "the thaw failed, look at the VM: $THAW"; }
    echo "consistency file-system"
    ;;
after)
    thaw_again
    remove
    ;;
*) fail "SPARESITE_HOOK is ${SPARESITE_HOOK:-not set}" ;;
esac
