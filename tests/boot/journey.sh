# shellcheck shell=bash disable=SC2034 # what it sets is for who sources it
# The journey of three real guests from a site into a cloud, in pieces: sourced by failover.sh and test-cloud.sh, which are run through
# `tests/setup.sh test` with SPARESITE_BIN. `url` is of a stand-in, or `aws`: what the environment says.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SPARESITE_CACHE:?run it through tests/setup.sh}
PATH=${SPARESITE_BIN:?the folder with both programs}:$PATH
python=${SPARESITE_PYTHON:?run it through tests/setup.sh}
aws=$here/../strict-aws
work=$(mktemp -d "$cache/journey.XXXXXX")
server=

say() { echo "${0##*/}: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
account() { "$python" "$aws/account.py" "$url" "$@"; }
ask() { "$python" -c 'import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(u.Request(sys.argv[2], method=sys.argv[1], data=open(sys.argv[3], "rb").read() if sys.argv[3:] else None)).read())' "$@"; }
# of VM KEY: what the run's report tells of it.
of() { "$python" -c 'import json, sys; print(next(vm[sys.argv[3]] for vm in json.load(open(sys.argv[1]))["vms"] if vm["vm"] == sys.argv[2]))' "$work/run.json" "$@"; }

stop_stand_in() { [[ -z $server ]] || kill "$server" 2>/dev/null || true; }

# One boots by BIOS, and has a data disk; of another what a BIOS would start is taken away: UEFI is left; the third looks for its
# root on /dev/sda1.
make_guests() {
    local variant image
    for variant in idle writer; do
        image=$cache/guest/$("$here/build-guest.sh" --name "$variant")
        "$here/build-guest.sh" "$image" "$variant"
        cp --sparse=always "$image" "$work/$variant.raw"
    done
    mv "$work/idle.raw" "$work/bios.raw"
    mv "$work/writer.raw" "$work/uefi.raw"
    "$here/broken/run" make root-sda1-on-virtio --output "$work/mended.raw"
    dd if=/dev/zero of="$work/uefi.raw" bs=440 count=1 conv=notrunc status=none
    truncate -s 300M "$work/data.raw"
    dd if=/dev/urandom of="$work/data.raw" bs=1M count=20 seek=100 conv=notrunc status=none
}

start_stand_in() {
    "$python" "$aws/serve.py" --port 0 2>"$work/server.log" &
    server=$!
    for _ in {1..600}; do
        url=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$work/server.log" 2>/dev/null | head -1 || true)
        [[ -n $url ]] && break
        sleep 0.1
    done
    [[ -n ${url:-} ]] || fail "the stand-in did not start"
    export AWS_ACCESS_KEY_ID=AKIATESTTESTTESTTEST AWS_SECRET_ACCESS_KEY=secret AWS_REGION=eu-central-1 AWS_ENDPOINT_URL=$url
    export AWS_EC2_METADATA_DISABLED=true
}

# make_site VAULT HEAD: the configuration of a site, a plan with this head, a vault and its kit.
make_site() {
    "$python" "$here/journey.py" site "$work" "$@"
    (umask 077 && echo "correct horse battery staple, for failovers" >"$work/passphrase")
    export SPARESITE_KIT=$work/kit SPARESITE_PASSPHRASE_FILE=$work/passphrase
    sparesite-gateway init --vault "$1" --key "$work/gateway.key" --kit "$work/kit" --passphrase-file "$work/passphrase" >/dev/null
}

# boot MODE DISK: NVMe as on Nitro, until a login prompt stands on the serial line, which is in $work/serial then.
boot() {
    local firmware=() serial=$work/serial qemu
    if [[ $1 == uefi ]]; then
        cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/vars.fd"
        firmware=(-drive "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"
            -drive "if=pflash,format=raw,file=$work/vars.fd")
    fi
    : >"$serial"
    qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -smp 2 -m 1024 -display none -monitor none -no-reboot -nic none -snapshot \
        "${firmware[@]}" -drive "file=$2,format=raw,if=none,id=root" -device nvme,drive=root,serial=root,bootindex=1 \
        -serial "file:$serial" &
    qemu=$!
    SECONDS=0
    while ((SECONDS < ${BOOT_SECONDS:-400})); do
        if grep -qa ' login: ' "$serial"; then
            kill "$qemu"
            wait "$qemu" 2>/dev/null || true
            echo "$1: login prompt from NVMe after $SECONDS s"
            return
        fi
        kill -0 "$qemu" 2>/dev/null || break
        sleep 1
    done
    kill "$qemu" 2>/dev/null || true
    tail -n 15 "$serial" >&2
    fail "no login prompt by $1"
}

# back VM DEVICE DISK: the disk behind the instance, as AWS's client reads it, is the site's. It is in $work/back.raw then.
back() {
    account disk "$(of "$1" instance)" "$2" "$work/back.raw" >/dev/null
    cmp -n "$(stat -c %s "$work/$3.raw")" "$work/$3.raw" "$work/back.raw" || fail "$3 came back with other bytes"
    echo "$1 $2: as $3.raw, byte for byte"
}
# back_all [THEN…]: all disks of all; THEN VM MODE is called when a root disk is in $work/back.raw.
back_all() {
    local vm mode
    back bios /dev/sdf data
    for vm in bios uefi; do
        mode=$([[ $vm == bios ]] && echo legacy-bios || echo uefi)
        [[ $(of "$vm" boot_mode) == "$mode" ]] || fail "$vm is not registered for $mode"
        back "$vm" /dev/sda1 "$vm"
        [[ $# -eq 0 ]] || "$@" "$vm" "$mode"
    done
    [[ $(of mended changed) == *root=UUID=* ]] || fail "the report does not tell what was changed of the guest that was to be converted"
    account disk "$(of mended instance)" /dev/sda1 "$work/back.raw" >/dev/null
    ! cmp -s -n "$(stat -c %s "$work/mended.raw")" "$work/mended.raw" "$work/back.raw" || fail "mended was sent as it was"
    echo "mended /dev/sda1: changed, as the report tells"
    [[ $# -eq 0 ]] || "$@" mended legacy-bios
}

# The stand-in's word that each request was as AWS's models have it.
no_violations() {
    local said
    said=$(ask GET "$AWS_ENDPOINT_URL/strict/violations")
    [[ $said == "[]" ]] || fail "requests departed from AWS's models: $said"
}
