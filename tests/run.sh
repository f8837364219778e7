#!/usr/bin/env bash
# The Rust tests of the workspace, the judging of the benches, the second reader's, the stand-in's, Terraform's. Called by `make test`, which has set up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Beside the build, which leaves it room: most of it is waiting for what it installs.
terraform='' told=$(mktemp)
trap '[[ -z $terraform ]] || kill "$terraform" 2>/dev/null || true; rm -f "$told"' EXIT
if command -v terraform >/dev/null; then
    tests/terraform/run >"$told" 2>&1 &
    terraform=$!
else
    tests/skip.sh terraform
fi

# The journeys start the programs, which a test build alone would not make. Built together with the tests, everything has
# the same features, and is compiled once.
cargo build --workspace --bins --tests --locked
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked
else
    cargo test --workspace --locked
fi

python3 -B -m unittest discover -q -s tests/bench
python3 -B -m unittest discover -q -s tests/boot/harness
python3 -B -m unittest discover -q -s tests/boot/broken

target=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
if command -v dpkg-deb >/dev/null; then
    SPARESITE_BIN=$target/debug packaging/check.sh
else
    tests/skip.sh dpkg-deb
fi
SPARESITE_BIN=$target/debug "$SPARESITE_PYTHON" -m pytest -q -p no:cacheprovider tests/second-reader
"$SPARESITE_PYTHON" -m pytest -q -p no:cacheprovider tests/strict-aws
[[ -z $terraform ]] || wait "$terraform" || {
    cat "$told" >&2
    exit 1
}
SPARESITE_BIN=$target/debug tests/boot/test-boot.sh short
