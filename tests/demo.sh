#!/usr/bin/env bash
# The user's journey on a real disk: a Debian guest goes into a vault, is used, goes in again; then
# the site is lost, and both recovery points come back, judged byte for byte by other people's tools.
#
#   tests/demo.sh [--boot]       called by `make demo`, which has set up; --boot starts what came back
#
# SPARESITE_BIN names a folder with the two programs; without it they are built.
set -Eeuo pipefail          # -E: the trap below speaks for functions too
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${SPARESITE_CACHE:?call it through tests/setup.sh demo, as make demo does}
demo=$cache/demo
site=$demo/site kept=$demo/kept back=$demo/back vault=$demo/vault
readonly fs_offset=1048576              # where tests/boot/build-guest.sh puts the file system
readonly table_mib=64 pages_written=1000

bold='' plain=''
if [[ -t 1 ]]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
step=start
heading() {
    step=$1
    printf '\n%s== %s%s\n' "$bold" "$1" "$plain"
}
show() {
    printf '$ %s\n' "${*//$demo\//}"
    "$@"
}
trap 'echo "demo: FAILED at: $step (its files are in $demo)" >&2' ERR

programs() {
    [[ -z ${SPARESITE_BIN:-} ]] || return 0
    heading "Building the programs (some minutes, the first time)"
    cargo build --release --locked --bin sparesite-gateway --bin sparesite-restore
    local target
    target=$(cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    SPARESITE_BIN=$target/release
}

# The image's name follows its recipe, so that a new recipe makes a new image.
guest() {
    guest_image=$cache/guest/$(tests/boot/build-guest.sh --name idle)
    if [[ ! -e $guest_image ]]; then
        heading "Building the guest (two minutes, the first time)"
        tests/boot/build-guest.sh "$guest_image"
    fi
}

in_guest() { debugfs -w -f - "$site/vm.raw?offset=$fs_offset" >/dev/null 2>&1; }

make_site() {
    heading "The site: a VM with a bootable Debian 12 disk and a database on it"
    rm -rf "$demo"
    mkdir -p "$site" "$kept" "$back"
    cp --sparse=always "$guest_image" "$site/vm.raw"
    python3 tests/demo_disk.py table "$demo/table" "$table_mib" 1
    in_guest <<<"write $demo/table /srv/table"
    rm "$demo/table"
    cat >"$site/gateway.toml" <<TOML
state = "$site/state"

[vault]
url = "file://$vault"
key = "$site/gateway.key"

[[policy]]
name = "servers"
rpo = "1h"
consistency = "none"

[[vm]]
name = "vm"
policy = "servers"
source = { disks = ["$site/vm.raw"] }
TOML
    sed "s|$demo/||" "$site/gateway.toml"
    qemu-img info "$site/vm.raw" | grep -E '^(file format|virtual size|disk size)'
}

make_vault() {
    heading "A vault, a gateway key, and a recovery kit to keep elsewhere"
    (umask 077 && echo "correct horse battery staple demo only" >"$demo/passphrase")
    show sparesite-gateway init --vault "file://$vault" --key "$site/gateway.key" --kit "$demo/kit" \
        --passphrase-file "$demo/passphrase"
}

# sync NUMBER: one cycle; keeps a copy of the disk as the truth, and prints what the vault grew by.
sync_and_keep() {
    local number=$1 before after
    before=$(python3 tests/demo_disk.py stored "$vault")
    cp --sparse=always "$site/vm.raw" "$kept/$number.raw"
    printf '$ sparesite-gateway sync --config site/gateway.toml --json\n'
    sparesite-gateway sync --config "$site/gateway.toml" --json >"$demo/sync-$number.json"
    python3 tests/demo_disk.py report "$demo/sync-$number.json"
    after=$(python3 tests/demo_disk.py stored "$vault")
    grown[number]=$((${after% *} - ${before% *}))
    printf 'The vault grew by %s bytes in %s objects.\n' "${grown[number]}" "$((${after#* } - ${before#* }))"
}

# A file added, one changed, one removed, and writes all over the database.
use_vm() {
    heading "A day's work: files come and go, $pages_written pages of 8 KiB change all over the database"
    head -c 3000000 /dev/urandom >"$demo/report.pdf"
    in_guest <<COMMANDS
mkdir /srv/reports
write $demo/report.pdf /srv/reports/report.pdf
rm /etc/issue
COMMANDS
    debugfs -R "blocks /srv/table" "$site/vm.raw?offset=$fs_offset" >"$demo/blocks" 2>/dev/null
    python3 tests/demo_disk.py write "$site/vm.raw" "$fs_offset" "$demo/blocks" 2 "$pages_written"
    changed=$(python3 tests/demo_disk.py changed "$kept/1.raw" "$site/vm.raw")
    echo "Changed on the disk: $changed"
}

lose_site() {
    heading "The site is lost: gateway, key, state and disk are gone; left are the vault and the kit"
    sparesite-gateway points --config "$site/gateway.toml"
    show rm -rf "$site"
}

same() { printf '    identical: %s\n' "$*"; }

bring_back() {
    export SPARESITE_KIT=$demo/kit SPARESITE_PASSPHRASE_FILE=$demo/passphrase
    heading "Both recovery points come back"
    show sparesite-restore points
    show sparesite-restore assemble vm@1 --output "$back/1.raw"
    cmp "$kept/1.raw" "$back/1.raw"
    same "cmp, with the disk of the first sync"
    show sparesite-restore assemble vm@2 --output "$back/2.raw" --format raw
    cmp "$kept/2.raw" "$back/2.raw"
    same "cmp, with the disk of the second sync"
    show sparesite-restore assemble vm@1 --output "$back/1.qcow2" --format qcow2
    qemu-img check -q "$back/1.qcow2"
    qemu-img compare -q -f raw -F qcow2 "$kept/1.raw" "$back/1.qcow2"
    same "qemu-img compare, in qcow2"
    e2fsck -fn "$back/2.raw?offset=$fs_offset" >/dev/null 2>&1
    debugfs -R "cat /srv/reports/report.pdf" "$back/2.raw?offset=$fs_offset" 2>/dev/null | cmp - "$demo/report.pdf"
    same "a file read out of the restored file system, which e2fsck finds clean"
}

verify() {
    heading "The vault is whole"
    show sparesite-restore verify --read-data
}

# Straight from the vault: nothing is restored first.
drill() {
    heading "A drill: the newest point boots from the vault, and a picture is taken (some minutes without KVM)"
    cat >"$demo/drill.toml" <<TOML
[[vm]]
name = "vm"
rpo = "1h"
rto = "1h"
memory = "512 MiB"

[[vm.probe]]
guest = ["uname", "-a"]                  # asked in the guest, by its agent
TOML
    show sparesite-restore drill --config "$demo/drill.toml" --reports "$demo/drills" --cache-folder "$demo"
}

summary() {
    heading "What it took"
    printf '    first sync     %7s MB into the vault, for a disk of %s MB of data\n' \
        "$((grown[1] / 1000000))" "$(($(stat -c '%b * %B / 1000000' "$kept/1.raw")))"
    printf '    second sync    %7s.%s MB into the vault, for %s changed\n' \
        "$((grown[2] / 1000000))" "$((grown[2] / 100000 % 10))" "$changed"
    printf '    time           %7s s\n' "$SECONDS"
    echo
    echo "Both recovery points came back byte for byte. Everything is in $demo; try for yourself:"
    echo "    export SPARESITE_KIT=$demo/kit SPARESITE_PASSPHRASE_FILE=$demo/passphrase"
    echo "    $SPARESITE_BIN/sparesite-restore points"
    echo "The picture of the booted machine is on the page $(echo "$demo"/drills/*.html)"
}

grown=()
programs
guest
PATH=$SPARESITE_BIN:$PATH
SECONDS=0
make_site
make_vault
heading "First sync: the whole disk"
sync_and_keep 1
use_vm
heading "Second sync: what changed"
sync_and_keep 2
lose_site
bring_back
verify
drill
if [[ ${1:-} == --boot ]]; then
    heading "What came back boots"
    show tests/boot/boot.sh "$back/2.raw"
fi
summary
