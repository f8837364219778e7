#!/bin/sh
# UNTESTED. The before and after hook of a Hyper-V VM: over ssh, checkpoint.ps1 makes a production checkpoint.
# From then on the VM writes to an .avhdx beside its .vhdx, which stays as it was and is read over the share.
#
#   source = { disks = ["/mnt/hv1/db/db.vhdx"], before = "/etc/sparesite/hooks/hyper-v.sh", after = "/etc/sparesite/hooks/hyper-v.sh" }
#
# /etc/sparesite/hooks/VM.conf:
#   HOST="sparesite@hv1.lan"           # what ssh is given; a member of Hyper-V Administrators
#   NAME="db"                          # as Hyper-V calls the VM
#   SHARE="/mnt/hv1"                   # where the share is mounted, read-only; looked at before the checkpoint
#   SCRIPT="C:\\sparesite\\checkpoint.ps1"
#
# The share is a mount of this machine's /etc/fstab, such as
#   //hv1.lan/sparesite$ /mnt/hv1 cifs ro,credentials=/etc/sparesite/hv1.cred,seal,vers=3.1.1,_netdev 0 0
set -eu

fail() { echo "$SPARESITE_VM: $*" >&2; exit 1; }
conf=${SPARESITE_HOOKS:-/etc/sparesite/hooks}/$SPARESITE_VM.conf
[ -r "$conf" ] || fail "$conf cannot be read"
HOST='' NAME='' SHARE='' SCRIPT='C:\sparesite\checkpoint.ps1'
# shellcheck source=/dev/null
. "$conf"
[ -n "$HOST" ] || fail "HOST is needed in $conf"
[ -n "$NAME" ] || fail "NAME is needed in $conf"
# Into a command line of another shell: nothing there that needs quoting.
case $NAME$SCRIPT in
*[!A-Za-z0-9._\\:\ -]*) fail "NAME and SCRIPT may hold letters, digits, blanks and . _ - \\ : only" ;;
esac

run() {
    ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -- "$HOST" \
        "powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File \"$SCRIPT\" -Hook $1 -Name \"$NAME\""
}

case $SPARESITE_HOOK in
before)
    if [ -n "$SHARE" ]; then
        mountpoint -q "$SHARE" || fail "$SHARE is not mounted: no checkpoint was made"
    fi
    run before
    # checkpoint.ps1 makes no other than production checkpoints.
    echo "consistency file-system"
    ;;
after) run after ;;
*) fail "SPARESITE_HOOK is ${SPARESITE_HOOK:-not set}" ;;
esac
