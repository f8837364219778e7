#!/usr/bin/env bash
# Three real guests fail over: captured, sent to a vault on S3, made instances of the strict stand-in for AWS; then their disks are
# read back by AWS's own client, compared with the site's byte for byte (one had to be converted: that it was), and booted in QEMU from NVMe, by the firmware that the
# image is registered with. Called through tests/setup.sh test, with SPARESITE_BIN.
#
#   tests/boot/failover.sh        (5 minutes)
set -euo pipefail
# shellcheck source=tests/boot/journey.sh
. "$(dirname "${BASH_SOURCE[0]}")/journey.sh"
clean_up() {
    stop_stand_in
    rm -rf "$work"
}
trap clean_up EXIT

make_guests
start_stand_in
ask PUT "$url/vault" >/dev/null
account head --zones 1 >"$work/head.toml"
make_site s3://vault/site "$work/head.toml"
sparesite-gateway sync --config "$work/gateway.toml" --quiet
code=0
sparesite-restore failover "$work/plan.toml" --reports "$work/runs" --json >"$work/run.json" || code=$?
[[ $code -eq 0 || $code -eq 3 ]] || fail "it ended with $code"

boot_it() { boot "$2" "$work/back.raw"; }
back_all boot_it
no_violations
