#!/usr/bin/env bash
# DNS cut-over by dynamic update (RFC 2136: BIND, Knot, PowerDNS, Windows with TSIG), as a hook of a recovery plan.
#
#   rfc2136.sh cut-over|back
#
# In the environment: SERVER, ZONE, TSIG_KEY (a key file as tsig-keygen makes it), and RECORDS, a file of lines
# `NAME TTL SITE-ADDRESS RECOVERY-ADDRESS` (# begins a comment). One update: all records change or none does, and saying it
# twice changes nothing more.
set -euo pipefail

case ${1:-} in
cut-over) column=4 ;;
back) column=3 ;;
*)
    echo "usage: ${0##*/} cut-over|back" >&2
    exit 2
    ;;
esac
: "${SERVER:?the name server}" "${ZONE:?the zone}" "${TSIG_KEY:?the key file}" "${RECORDS:?the file of records}"

# Checked, so that no line of the file becomes another command of nsupdate's.
changes=$(awk -v column="$column" '
    /^[[:space:]]*(#|$)/ { next }
    NF != 4 || $1 !~ /^[A-Za-z0-9_*.-]+$/ || $2 !~ /^[0-9]+$/ || $column !~ /^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$/ {
        print FILENAME ":" FNR ": not NAME TTL SITE-ADDRESS RECOVERY-ADDRESS" >"/dev/stderr"
        bad = 1
        next
    }
    {
        name = $1 ~ /[.]$/ ? $1 : $1 "."
        print "update delete " name " A"
        print "update add " name " " $2 " A " $column
        any = 1
    }
    END {
        if (bad) exit 1
        if (!any) { print FILENAME ": no record" >"/dev/stderr"; exit 1 }
    }' "$RECORDS")

# -v: by TCP, since many records fit into no datagram.
nsupdate -v -k "$TSIG_KEY" <<END
server $SERVER
zone $ZONE
$changes
send
END
