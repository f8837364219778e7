#!/usr/bin/env bash
# Captures of a real guest that writes all the time. Called through tests/setup.sh test-boot, which has set up.
#
#   tests/boot/test-boot.sh short     five points; two broken guests; a drill; three guests fail over   (6 minutes)
#   tests/boot/test-boot.sh long      the other broken guests; thirty points at 10-second intervals and one after 200
#                                     MiB of changes; 200 kills of `sync`, 50 of `run`; points and kills with an S3
#                                     server that goes and comes, and behind 1 Mbit/s
#                                                                              (100 minutes, nothing else running)
#
# CAPTURER is sparesite (default), or copy or sparesite-copies, which need no live source and prove nothing of the
# product's: the long form fails with them, and where XFS cannot be mounted. SPARESITE_BIN names a folder with the
# two programs. The figures go to BOOT_RESULTS (default: boot-results of the cache).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

length=${1:?usage: test-boot.sh short|long}
capturer=${CAPTURER:-sparesite}
results=${BOOT_RESULTS:-${SPARESITE_CACHE:?call it through tests/setup.sh test-boot}/boot-results}
mkdir -p "$results"

if [[ $capturer == sparesite* && -z ${SPARESITE_BIN:-} ]]; then
    cargo build --release --locked --bin sparesite-gateway --bin sparesite-restore
    SPARESITE_BIN=$(cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release
    export SPARESITE_BIN
fi

failed=()
strict=()
step() {
    local name=$1
    shift
    echo "== $name" >&2
    tests/boot/run "${strict[@]}" "$@" || failed+=("$name (exit $?)")
}
broken() {
    echo "== broken guests" >&2
    tests/boot/broken/run --json "$results/broken-$1.json" all "--$1" || failed+=("broken guests (exit $?)")
}
converted() {
    echo "== converted guests" >&2
    tests/boot/broken/run convert || failed+=("converted guests (exit $?)")
}
points() { step "$1" points --capturer "$capturer" --json "$results/$1.json" "${@:2}"; }
kills() { step "$1" kills --capturer "$capturer" --json "$results/$1.json" "${@:2}"; }

case $length in
short)
    # On a machine that does other things too: what is right is judged, not how fast it is.
    points points-short --points 5 --interval 4 --untimed
    broken fast
    # One of its three guests has to be converted; one starts by UEFI.
    echo "== failover" >&2
    tests/boot/failover.sh || failed+=("failover (exit $?)")
    echo "== drill" >&2
    tests/boot/drill.sh || failed+=("drill (exit $?)")
    ;;
long)
    strict=(--strict)
    python3 -B -m unittest discover -q -s tests/boot/harness
    python3 -B -m unittest discover -q -s tests/boot/broken
    # Minutes, with nothing else running: what each is expected to take.
    step selftest selftest                                                                          # 2
    broken rest                                                                                     # 30
    converted                                                                                       # 25
    points points --points 30 --interval 10 --bulk 200                                              # 12
    step uefi --firmware uefi --disk-format raw --data-fs ext4 points --capturer "$capturer" --points 3 \
        --json "$results/uefi.json"                                                                 # 2
    if [[ $capturer == sparesite* ]]; then
        kills kills --kills 200                                                                     # 16
        kills kills-daemon --daemon --kills 50                                                      # 7
        kills kills-s3-outages --kills 50 --vault s3 --outages                                      # 8
        points points-s3-outages --points 6 --interval 10 --vault s3 --outages                      # 2
        kills kills-uplink --kills 20 --vault s3 --uplink '1 Mbit/s'                                # 9
        # Enough to send, so that the rate is reached for 20 s: 32 KiB a second more than the usual 90, which compress a little.
        saturating=(--points 4 --interval 30 --vault s3 --load bulk=0.5)
        points uplink "${saturating[@]}" --uplink '1 Mbit/s'                                        # 3
        points cap "${saturating[@]}" --cap '1 Mbit/s'                                              # 3
        points cap-below-the-line "${saturating[@]}" --uplink '1 Mbit/s' --cap '800 kbit/s'         # 4
    fi
    ;;
*) echo "usage: test-boot.sh short|long" >&2; exit 2 ;;
esac

if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'test-boot: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "test-boot: $length: all good; the figures are in $results"
