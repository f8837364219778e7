#!/bin/sh
# Begins a backup job of a domain and watches over it, on the domain's host: the guest is thawed and the job ended
# whatever becomes of who asked, whose end of our standard input closes with it.
# Arguments: URI, domain, freeze (yes or no), most bytes of scratch, the socket (by which the job is known to be ours),
# the folder of the scratch files, the backup's XML, the checkpoint's XML (may be empty).
uri=$1 domain=$2 freeze=$3 most=$4 socket=$5 folder=$6 backup=$7 checkpoint=$8
export LC_ALL=C
trap '' HUP INT TERM PIPE
v() { virsh -q -c "$uri" "$@" 2>&1; }
now() { date +%s%N; }
say() { printf '%s\n' "$(printf '%s ' "$@" | tr '\n' ' ')" 2>/dev/null; }
ours() { v backup-dumpxml "$domain" | grep -qF "$socket"; }
give_up() {
    tries=0
    while ours && [ "$tries" -lt 100 ]; do
        v domjobabort "$domain" >/dev/null
        tries=$((tries + 1))
        sleep 0.1
    done
}
work=$(mktemp -d "$folder/sparesite-job.XXXXXX" 2>&1) || { say failed "$work"; exit 1; }
printf '%s' "$backup" >"$work/backup"
printf '%s' "$checkpoint" >"$work/checkpoint"
frozen=no
patience=120
if [ "$freeze" = yes ]; then
    say os "$(timeout 10 virsh -q -c "$uri" guestinfo "$domain" --os 2>/dev/null | sed -n 's/^os\.id *: *//p')"
    frozen=yes
    began=$(now)
    if words=$(timeout 30 virsh -q -c "$uri" domfsfreeze "$domain" 2>&1); then
        say frozen "$words"
    else
        say unfrozen "$words"
        # Most likely nothing is frozen; where the agent was only slow, this is enough.
        patience=20
    fi
fi
if [ -n "$checkpoint" ]; then
    set -- "$work/backup" "$work/checkpoint"
else
    set -- "$work/backup"
fi
# It may wait long for another job of libvirt, and the guest would wait frozen.
words=$(timeout 10 virsh -q -c "$uri" backup-begin "$domain" "$@" 2>&1)
begun=$?
tries=0
while [ "$frozen" = yes ]; do
    if thawed=$(timeout 30 virsh -q -c "$uri" domfsthaw "$domain" 2>&1); then
        frozen=no
        say thawed "$(($(now) - began))" "$thawed"
    elif [ "$tries" -ge "$patience" ]; then
        say stuck "$thawed"
        break
    fi
    tries=$((tries + 1))
    [ "$frozen" = no ] || sleep 0.5
done
rm -rf "$work"
if [ "$begun" -ne 0 ]; then
    give_up
    [ "$begun" -ne 124 ] || words="libvirt did not begin it within 10 s: another job of the domain holds it"
    say failed "$words"
    exit 1
fi
say begun
(
    while sleep 0.3; do
        used=$(v domjobinfo "$domain" --rawstats | sed -n 's/^disk_temp_used: *//p')
        if [ -z "$used" ]; then
            ours && continue
            say gone
            break
        fi
        free=$(($(df -k --output=avail "$folder" | tail -n 1) * 1024))
        if [ "$used" -gt "$most" ] || [ "$free" -lt "$((most / 2))" ]; then
            give_up
            say full "$used" "$free"
            break
        fi
    done
) &
watcher=$!
while read -r line; do
    [ "$line" = end ] && break
done
# It has our traps.
kill -KILL "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
give_up
if ours; then say left; else say ended; fi
