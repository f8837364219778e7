#!/bin/sh
# Begins a backup job of a domain and watches over it, on the domain's host: the guest is thawed and the job ended
# whatever becomes of who asked, whose end of our standard input closes with it.
# Arguments: URI, the domain's UUID, freeze (yes or no), most bytes of scratch, the socket (by which the job is known to
# be ours), what the names of all other files of ours begin with, the backup's XML, the checkpoint's XML (may be empty).
uri=$1 domain=$2 freeze=$3 most=$4 socket=$5 files=$6 backup=$7 checkpoint=$8
export LC_ALL=C
trap '' HUP INT TERM PIPE
# A libvirtd that hangs must not keep us from the guest, whose other limits come first.
v() {
    limit=$1
    shift
    timeout "$limit" virsh -q -c "$uri" "$@" 2>&1
}
now() { date +%s%N; }
say() { printf '%s\n' "$(printf '%s ' "$@" | tr '\n' ' ')" 2>/dev/null; }
ours() { v 10 backup-dumpxml "$domain" | grep -qF "$socket"; }
# Whether it is proved that no job of ours is there. That libvirt cannot be asked proves nothing: a job outlives its
# libvirtd. What libvirt says in its own words is in its own language; numbers and exit codes are not.
gone() {
    if job=$(v 10 domjobinfo "$domain" --rawstats); then
        case $job in
        *'Job type: 0'*) return 0 ;;
        # A backup, perhaps another one's.
        *'operation: 9'*)
            job=$(v 10 backup-dumpxml "$domain") || return 1
            case $job in *"$socket"*) return 1 ;; esac
            ;;
        *'operation: '*) return 0 ;;
        *) return 1 ;;
        esac
    else
        # Those that run.
        job=$(v 10 list --uuid) || return 1
        case $job in *"$domain"*) return 1 ;; esac
    fi
}
# Within so many seconds; whether it is proved.
give_up() {
    deadline=$(($(date +%s) + $1))
    until gone; do
        [ "$(date +%s)" -lt "$deadline" ] || return 1
        ours && v 10 domjobabort "$domain" >/dev/null
        sleep 0.1
    done
}
# Who asked has been told. What stays is ended all the same, as long as no later script of ours has taken over, which
# removes our folder; for an hour.
go_on() {
    rounds=0
    until give_up 60 || [ ! -d "$work" ] || [ "$rounds" -ge 60 ]; do
        rounds=$((rounds + 1))
        sleep 1
    done
    rm -rf "$work"
}
# libvirtd goes on with a call whose virsh was ended: it waits up to 30 s for another job of the domain, and for QEMU.
end_late() {
    deadline=$(($(date +%s) + 45))
    while [ "$(date +%s)" -lt "$deadline" ] && [ -d "$work" ]; do
        ours && break
        sleep 0.3
    done
    go_on
}
watch() {
    while sleep 0.3; do
        used=$(v 10 domjobinfo "$domain" --rawstats | sed -n 's/^disk_temp_used: *//p')
        if [ -z "$used" ]; then
            gone || continue
            say gone
            break
        fi
        free=$(($(df -k --output=avail "${files%/*}" | tail -n 1) * 1024))
        if [ "$used" -gt "$most" ] || [ "$free" -lt "$((most / 2))" ]; then
            say full "$used" "$free"
            give_up 3600
            break
        fi
    done
}
thaw() {
    [ "$freeze" = yes ] || return
    tries=0
    until thawed=$(v 30 domfsthaw "$domain"); do
        if [ "$tries" -ge "$patience" ]; then
            say stuck "$thawed"
            return
        fi
        tries=$((tries + 1))
        sleep 0.5
    done
    say thawed "$(($(now) - began))" "$thawed"
}
# A host that lost its power leaves scratch files, and libvirt begins no job over one.
gone && rm -rf -- "${files:?}"*
work=$(mktemp -d "${files}job.XXXXXX" 2>&1) || { say failed "$work"; exit 1; }
printf '%s' "$backup" >"$work/backup"
printf '%s' "$checkpoint" >"$work/checkpoint"
patience=120
if [ "$freeze" = yes ]; then
    say os "$(v 10 guestinfo "$domain" --os | sed -n 's/^os\.id *: *//p')"
    began=$(now)
    if words=$(v 30 domfsfreeze "$domain"); then
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
words=$(v 10 backup-begin "$domain" "$@")
case $? in
0) ;;
124)
    end_late &
    thaw
    say failed "libvirt did not begin it within 10 s: another job of the domain holds it"
    wait
    exit 1
    ;;
*)
    thaw
    if give_up 20; then
        rm -rf "$work"
        say failed "$words"
    else
        say failed "$words"
        go_on
    fi
    exit 1
    ;;
esac
# Before the guest is thawed, which takes long where its agent hangs: what it writes goes to the scratch from now on.
watch &
watcher=$!
{
    thaw
    say begun
} &
while read -r line; do
    [ "$line" = end ] && break
done
# It has our traps.
kill -KILL "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
if give_up 15; then
    rm -rf "$work"
    say ended
else
    say left
    go_on
fi
# What still thaws.
wait
