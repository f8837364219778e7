#!/usr/bin/env bash
# Proves from their symbol versions that programs run wherever glibc is so old: Debian 12 has 2.36,
# Ubuntu 22.04 2.35, RHEL 9 and Amazon Linux 2023 2.34. And that they need no other library.
#
#   packaging/glibc.sh PROGRAM…
set -euo pipefail

readonly oldest=${SPARESITE_OLDEST:-2.34}
findings=0
for program in "$@"; do
    # First the tool's own success: no list is no proof.
    versions=$(LC_ALL=C readelf --wide --version-info "$program")
    needed=$(LC_ALL=C readelf --wide --dynamic "$program")
    newer=$(grep -oE '\bGLIBC_[0-9.]+' <<<"$versions" | sed 's/GLIBC_//' | sort -uV |
        awk -v oldest="$oldest" '{ split($1, v, "."); split(oldest, o, ".")
            if (v[1] > o[1] || (v[1] == o[1] && v[2] + 0 > o[2] + 0)) print "GLIBC_" $1 }')
    if [[ -z $versions ]] || ! grep -q GLIBC_ <<<"$versions"; then
        echo "glibc: $program names no version of glibc: is it a program of ours?" >&2
        findings=1
    fi
    for version in $newer; do
        symbols=$(LC_ALL=C readelf --wide --dyn-syms "$program" | grep -oE "[^ ]+@${version//./\\.}\b" | sort -u | paste -sd' ')
        echo "glibc: $program needs $version, and may need $oldest at most: $symbols" >&2
        findings=1
    done
    foreign=$(grep NEEDED <<<"$needed" | grep -oE '\[[^]]+\]' | tr -d '[]' |
        grep -vxE 'libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2' || true)
    if [[ -n $foreign ]]; then
        echo "glibc: $program needs other libraries: $foreign" >&2
        findings=1
    fi
done
[[ $findings -eq 0 ]] && echo "glibc: $oldest is enough"
