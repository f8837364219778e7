#!/usr/bin/env bash
# Two real guests fail over: captured, sent to a vault on S3, made instances of the strict stand-in for AWS; then their disks are
# read back by AWS's own client, compared with the site's byte for byte, and booted in QEMU from NVMe, by the firmware that the
# image is registered with. Called through tests/setup.sh test, with SPARESITE_BIN.
#
#   tests/boot/failover.sh        (3 minutes)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SPARESITE_CACHE:?run it through tests/setup.sh}
PATH=${SPARESITE_BIN:?the folder with both programs}:$PATH
python=${SPARESITE_PYTHON:?run it through tests/setup.sh}
aws=$here/../strict-aws

work=$(mktemp -d "$cache/failover.XXXXXX")
server=
clean_up() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
fail() {
    echo "failover: $*" >&2
    exit 1
}

# One boots by BIOS, and has a data disk; of the other what a BIOS would start is taken away: UEFI is left.
for variant in idle writer; do
    image=$cache/guest/$("$here/build-guest.sh" --name "$variant")
    "$here/build-guest.sh" "$image" "$variant"
    cp --sparse=always "$image" "$work/$variant.raw"
done
mv "$work/idle.raw" "$work/bios.raw"
mv "$work/writer.raw" "$work/uefi.raw"
dd if=/dev/zero of="$work/uefi.raw" bs=440 count=1 conv=notrunc status=none
truncate -s 300M "$work/data.raw"
dd if=/dev/urandom of="$work/data.raw" bs=1M count=20 seek=100 conv=notrunc status=none

"$python" "$aws/serve.py" --port 0 2>"$work/server.log" &
server=$!
for _ in {1..600}; do
    url=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$work/server.log" | head -1 || true)
    [[ -n $url ]] && break
    sleep 0.1
done
[[ -n ${url:-} ]] || fail "the stand-in did not start"
export AWS_ACCESS_KEY_ID=AKIATESTTESTTESTTEST AWS_SECRET_ACCESS_KEY=secret AWS_REGION=eu-central-1 AWS_ENDPOINT_URL=$url
export AWS_EC2_METADATA_DISABLED=true
ask() { "$python" -c 'import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(u.Request(sys.argv[2], method=sys.argv[1])).read())' "$@"; }
ask PUT "$url/vault" >/dev/null
"$python" "$aws/account.py" "$url" network >"$work/network.json"

"$python" - "$work" <<'PYTHON'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
network = json.loads((work / "network.json").read_text())
policy = '[[policy]]\nname = "p"\nrpo = "1h"\nconsistency = "none"\n'
vm = '[[vm]]\nname = "{}"\npolicy = "p"\nsource = {{ disks = [{}] }}\n'
disks = {"bios": ["bios", "data"], "uefi": ["uefi"]}
paths = {name: ", ".join(f'"{work}/{disk}.raw"' for disk in of) for name, of in disks.items()}
(work / "gateway.toml").write_text(
    f'state = "{work}/state"\n[vault]\nurl = "s3://vault/site"\nkey = "{work}/gateway.key"\n'
    + policy + "".join(vm.format(name, of) for name, of in paths.items())
)
subnet = f'[[subnet]]\nname = "a"\nid = "{network["recovery"]["subnets"][0]}"\nrange = "10.20.1.0/24"\nzone = "eu-central-1a"\n'
planned = '[[vm]]\nname = "{}"\ngroup = "all"\ninstance = ["t3.medium"]\nsubnet = ["a"]\n'
(work / "plan.toml").write_text(
    'name = "site"\ncloud = "aws"\nregion = "eu-central-1"\n' + subnet + '[[group]]\nname = "all"\n'
    + "".join(planned.format(name) for name in disks)
)
PYTHON
(umask 077 && echo "correct horse battery staple, for failovers" >"$work/passphrase")
export SPARESITE_KIT=$work/kit SPARESITE_PASSPHRASE_FILE=$work/passphrase
sparesite-gateway init --vault s3://vault/site --key "$work/gateway.key" --kit "$work/kit" --passphrase-file "$work/passphrase" >/dev/null
sparesite-gateway sync --config "$work/gateway.toml" --quiet
code=0
sparesite-restore failover "$work/plan.toml" --reports "$work/runs" --json >"$work/run.json" || code=$?
[[ $code -eq 0 || $code -eq 3 ]] || fail "it ended with $code"

# boot MODE DISK: NVMe as on Nitro, until a login prompt stands on the serial line.
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

of() { "$python" -c 'import json, sys; print(next(vm[sys.argv[3]] for vm in json.load(open(sys.argv[1]))["vms"] if vm["vm"] == sys.argv[2]))' "$work/run.json" "$@"; }
# back VM DEVICE DISK: the disk behind the instance, as AWS's client reads it, is the site's.
back() {
    "$python" "$aws/account.py" "$url" disk "$(of "$1" instance)" "$2" "$work/back.raw" >/dev/null
    cmp -n "$(stat -c %s "$work/$3.raw")" "$work/$3.raw" "$work/back.raw" || fail "$3 came back with other bytes"
    echo "$1 $2: as $3.raw, byte for byte"
}
back bios /dev/sdf data
back bios /dev/sda1 bios
[[ $(of bios boot_mode) == legacy-bios ]] || fail "the first is not registered for BIOS"
boot legacy-bios "$work/back.raw"
back uefi /dev/sda1 uefi
[[ $(of uefi boot_mode) == uefi ]] || fail "the second is not registered for UEFI"
boot uefi "$work/back.raw"
[[ $(ask GET "$url/strict/violations") == "[]" ]] || fail "requests departed from AWS's models: $(ask GET "$url/strict/violations")"
