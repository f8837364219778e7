#!/bin/sh
# UNTESTED on a machine with ZFS. The before and after hook of a VM whose disks lie on ZFS of this machine:
# a snapshot @sparesite of all of them at one instant, and of each zvol a read-only clone POOL/sparesite-ZVOL.
#
#   source = { disks = ["/dev/zvol/tank/sparesite-vm-101-disk-0"], before = "/etc/sparesite/hooks/zfs.sh", after = "/etc/sparesite/hooks/zfs.sh" }
#   source = { disks = [{ path = "/tank/vms/.zfs/snapshot/sparesite/files.raw", format = "raw" }], ... }
#
# /etc/sparesite/hooks/VM.conf:
#   ZVOLS="tank/vm-101-disk-0 tank/vm-101-disk-1"
#   DATASETS=""                        # file systems that hold images
#   FREEZE="qm guest cmd 101 fsfreeze-freeze"   # or "none"
#   THAW="qm guest cmd 101 fsfreeze-thaw"
#
# All of one pool: only those are of one instant. With FREEZE=none the point is what a power cut leaves, and is called so
# (crash).
set -eu

fail() { echo "$SPARESITE_VM: $*" >&2; exit 1; }
conf=${SPARESITE_HOOKS:-/etc/sparesite/hooks}/$SPARESITE_VM.conf
[ -r "$conf" ] || fail "$conf cannot be read"
ZVOLS='' DATASETS='' FREEZE='' THAW=''
# shellcheck source=/dev/null
. "$conf"
[ -n "$ZVOLS$DATASETS" ] || fail "neither ZVOLS nor DATASETS in $conf"
pool=''
for name in $ZVOLS $DATASETS; do
    [ "${pool:-${name%%/*}}" = "${name%%/*}" ] || fail "$pool and ${name%%/*} are two pools: no snapshot is of both"
    pool=${name%%/*}
done

has() { zfs list -H -o name "$1" >/dev/null 2>&1; }
clone_of() { echo "${1%/*}/sparesite-${1##*/}"; }

remove() {
    for zvol in $ZVOLS; do
        ours=$(clone_of "$zvol")
        has "$ours" || continue
        # Never a volume that is something else, whoever gave it this name.
        [ "$(zfs get -H -o value origin "$ours")" = "$zvol@sparesite" ] ||
            fail "$ours is no clone of $zvol@sparesite: it was not removed"
        zfs destroy "$ours"
    done
    for name in $ZVOLS $DATASETS; do
        if has "$name@sparesite"; then zfs destroy "$name@sparesite"; fi
    done
}

snapshot() {
    set --
    for name in $ZVOLS $DATASETS; do
        set -- "$@" "$name@sparesite"
    done
    # One command, one instant.
    zfs snapshot "$@"
}

clone() {
    for zvol in $ZVOLS; do
        ours=$(clone_of "$zvol")
        zfs clone -o readonly=on "$zvol@sparesite" "$ours" || return
        # udev makes the device a little later.
        tries=0
        until [ -e "/dev/zvol/$ours" ]; do
            tries=$((tries + 1))
            [ $tries -le 30 ] || return 1
            sleep 1
        done
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
    consistency=file-system
    if [ "$FREEZE" = none ]; then
        consistency=crash
        snapshot || { remove; fail "no snapshot was made"; }
    else
        [ -n "$THAW" ] || fail "FREEZE without THAW in $conf"
        # Thawed whatever ends this script, also where the freeze failed halfway.
        trap 'sh -c "$THAW" >/dev/null 2>&1 || true' EXIT
        trap 'exit 1' HUP INT TERM
        sh -c "$FREEZE" >/dev/null || fail "the freeze failed: $FREEZE"
        snapshot || { remove; fail "no snapshot was made"; }
        trap - EXIT
        sh -c "$THAW" >/dev/null || { remove; fail "the thaw failed, look at the VM: $THAW"; }
    fi
    clone || { remove; fail "no clone was made, or its device did not come"; }
    echo "consistency $consistency"
    ;;
after)
    thaw_again
    remove
    ;;
*) fail "SPARESITE_HOOK is ${SPARESITE_HOOK:-not set}" ;;
esac
