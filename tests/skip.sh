#!/usr/bin/env bash
# skip.sh WHAT…: says what is left out for want of WHAT; fails where it was to be there, as testkit's `skip` does.
set -euo pipefail
for what in "$@"; do
    if [[ ${SPARESITE_REQUIRE:-} == 1 && " ${SPARESITE_WITHOUT:-} " != *" $what "* ]]; then
        echo "$what is not to be had here, and SPARESITE_REQUIRE is 1: run tests/setup.sh test" >&2
        exit 1
    fi
    echo "SKIPPED: no $what here" >&2
done
