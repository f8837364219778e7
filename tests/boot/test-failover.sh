#!/usr/bin/env bash
# The long form of what `make test` holds of failing over (40 minutes). Called through tests/setup.sh test, which has set up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --workspace --bins --tests --locked
target=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
export SPARESITE_BIN=$target/debug
tests/boot/failover.sh
# What a real account is asked to do (6 minutes), so that it is not first tried where it costs.
report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT
SPARESITE_CLOUD_REPORT=$report tests/boot/test-cloud.sh --rehearse
# Five kills a minute, besides what else the journeys do.
SPARESITE_KILLS=${SPARESITE_KILLS:-100} cargo test --locked -p journeys --test failover -- --test-threads 2
