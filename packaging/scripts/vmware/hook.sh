#!/bin/bash
# UNTESTED on ESXi. The before and after hook of a VMware VM: over ssh, ESXi makes a quiesced snapshot; from then
# on the VM writes beside its base disks, which nbdkit hands out here on a Unix socket each. `after` ends nbdkit
# and removes the snapshot.
#
#   source = { nbd = [{ name = "db", uri = "nbd+unix:///?socket=/run/sparesite-vmware/db-0" }], before = "/etc/sparesite/hooks/vmware.sh", after = "/etc/sparesite/hooks/vmware.sh" }
#
# /etc/sparesite/hooks/VM.conf, read by bash:
#   HOST="root@esxi1.lan"              # what ssh is given: the ESXi host that runs the VM
#   VMID=12                            # vim-cmd vmsvc/getallvms
#   READER=ssh                         # ssh: the files of the datastore. vddk: VMware's library, which you have to get
#   DISKS=("datastore1/db/db" "datastore1/db/db_1")    # DATASTORE/FOLDER/NAME, without .vmdk
#   QUIESCE=1                          # VMware Tools in the guest are needed; 0 for what a power cut leaves (crash)
# and for vddk (nbdkit-vddk-plugin(1) has the words):
#   SERVER=esxi1.lan VDDK_USER=root PASSWORD_FILE=/etc/sparesite/esxi1.password
#   THUMBPRINT=xx:xx:... LIBDIR=/opt/vmware-vix-disklib-distrib
#
# No change tracking: the whole disk is read and compared each time. ssh reads what a thin disk never wrote, too.
set -euo pipefail

fail() { echo "$SPARESITE_VM: $*" >&2; exit 1; }
conf=${SPARESITE_HOOKS:-/etc/sparesite/hooks}/$SPARESITE_VM.conf
[[ -r $conf ]] || fail "$conf cannot be read"
HOST='' VMID='' READER=ssh DISKS=() QUIESCE=1
SERVER='' VDDK_USER=root PASSWORD_FILE='' THUMBPRINT='' LIBDIR=/opt/vmware-vix-disklib-distrib
# shellcheck source=/dev/null
. "$conf"
[[ -n $HOST && $VMID =~ ^[0-9]+$ && ${#DISKS[@]} -gt 0 ]] || fail "HOST, VMID and DISKS are needed in $conf"
[[ $QUIESCE == [01] ]] || fail "QUIESCE is 0 or 1 in $conf"
folder=${SPARESITE_SOCKETS:-/run/sparesite-vmware}
# A hook has 120 s.
last_second=100

esxi() {
    ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -- "$HOST" "$@" </dev/null
}

# "id name" of each snapshot, from the tree that vim-cmd prints.
snapshots() {
    local all
    all=$(esxi "vim-cmd vmsvc/snapshot.get $VMID") || fail "$HOST does not tell the snapshots of VM $VMID"
    awk -F': ' '/Snapshot Name/ { name = $2 } /Snapshot Id/ { print $2, name }' <<<"$all"
}

# The id of ours; fails the script if there are others, since the base disks are not the newest state then.
ours() {
    local all others
    all=$(snapshots) || exit 1
    others=$(grep -vE '^([0-9]+ sparesite *)?$' <<<"$all" || true)
    if [[ -n $others ]]; then
        fail "VM $VMID has other snapshots: its base disks are not its newest state. Remove them"
    fi
    awk 'NR == 1 { print $1 }' <<<"$all"
}

stop_nbdkit() {
    local number pid
    for number in "${!DISKS[@]}"; do
        pid=$(cat "$folder/$SPARESITE_VM-$number.pid" 2>/dev/null || true)
        # A number may be another process's by now.
        if [[ $pid =~ ^[0-9]+$ && $(cat "/proc/$pid/comm" 2>/dev/null || true) == nbdkit ]]; then
            kill "$pid" || true
        fi
        rm -f "$folder/$SPARESITE_VM-$number" "$folder/$SPARESITE_VM-$number.pid"
    done
}

# Consolidating goes on after this returns; `before` waits for it.
remove_snapshot() {
    local id
    id=$(snapshots | awk '$2 == "sparesite" && !found { print $1; found = 1 }') || return 1
    [[ -z $id ]] || esxi "vim-cmd vmsvc/snapshot.remove $VMID $id" >/dev/null
}

start_nbdkit() {
    local number disk words
    for number in "${!DISKS[@]}"; do
        disk=${DISKS[$number]}
        words=(nbdkit --readonly --unix "$folder/$SPARESITE_VM-$number" --pidfile "$folder/$SPARESITE_VM-$number.pid")
        case $READER in
        ssh)
            words+=(ssh "host=${HOST#*@}" "path=/vmfs/volumes/$disk-flat.vmdk")
            [[ $HOST != *@* ]] || words+=("user=${HOST%%@*}")
            ;;
        vddk)
            words+=(vddk "libdir=$LIBDIR" "server=$SERVER" "user=$VDDK_USER" "password=+$PASSWORD_FILE"
                "thumbprint=$THUMBPRINT" "vm=moref=$VMID" "file=[${disk%%/*}] ${disk#*/}.vmdk" transports=nbdssl:nbd)
            ;;
        *) fail "READER is $READER: write ssh or vddk" ;;
        esac
        "${words[@]}" >/dev/null || return
    done
}

case ${SPARESITE_HOOK:-} in
before)
    install -d -m 0700 "$folder"
    stop_nbdkit
    # Of a gateway that was killed.
    id=$(ours)
    [[ -z $id ]] || remove_snapshot
    while ((SECONDS < last_second)); do
        id=$(ours)
        [[ -n $id ]] || break
        sleep 2
    done
    [[ -z $id ]] || fail "an earlier snapshot is still being consolidated: try again later"
    esxi "vim-cmd vmsvc/snapshot.create $VMID sparesite sparesite 0 $QUIESCE" >/dev/null || fail "no snapshot was made"
    # vim-cmd begins it, and returns.
    while ((SECONDS < last_second)); do
        id=$(ours)
        [[ -z $id ]] || break
        sleep 2
    done
    [[ -n $id ]] || fail "no snapshot came in time: look at the VM's events, and at VMware Tools in the guest"
    start_nbdkit || { stop_nbdkit; remove_snapshot || true; fail "nbdkit did not start"; }
    if [[ $QUIESCE == 1 ]]; then echo "consistency file-system"; else echo "consistency crash"; fi
    ;;
after)
    stop_nbdkit
    remove_snapshot || fail "the snapshot sparesite of VM $VMID stays: remove it, it grows"
    ;;
*) fail "SPARESITE_HOOK is ${SPARESITE_HOOK:-not set}" ;;
esac
