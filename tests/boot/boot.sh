#!/usr/bin/env bash
# Boots a disk in QEMU until its login prompt shows on the serial line; the disk is not written.
#
#   tests/boot/boot.sh IMAGE [FORMAT]      FORMAT raw (default), qcow2, vpc, …
#
# BOOT_SECONDS (default 300) bounds the wait: emulated, it takes 25 to 90 s.
set -euo pipefail

image=${1:?usage: boot.sh IMAGE [FORMAT]}
format=${2:-raw}
limit=${BOOT_SECONDS:-300}

serial=$(mktemp)
qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -m 512 -display none -monitor none -no-reboot \
    -nic none -snapshot -drive "file=$image,format=$format,if=virtio" -serial "file:$serial" &
qemu=$!
trap 'kill "$qemu" 2>/dev/null || true; rm -f "$serial"' EXIT

SECONDS=0
while ((SECONDS < limit)); do
    if grep -qa ' login: ' "$serial"; then
        echo "login prompt after $SECONDS s"
        exit 0
    fi
    kill -0 "$qemu" 2>/dev/null || break
    sleep 1
done
echo "boot: no login prompt from $image within $SECONDS s; its console ended with:" >&2
tail -n 15 "$serial" >&2
exit 1
