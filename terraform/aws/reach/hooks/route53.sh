#!/usr/bin/env bash
# DNS cut-over in Route 53, as a hook of a recovery plan.
#
#   route53.sh cut-over|back
#
# In the environment: ZONE_ID, and RECORDS, a file of lines `NAME TTL SITE-ADDRESS RECOVERY-ADDRESS` (# begins a comment).
# All records change at once or none does, and saying it twice changes nothing more.
set -euo pipefail

case ${1:-} in
cut-over) column=4 ;;
back) column=3 ;;
*)
    echo "usage: ${0##*/} cut-over|back" >&2
    exit 2
    ;;
esac
: "${ZONE_ID:?the hosted zone}" "${RECORDS:?the file of records}"

# Names and addresses are checked here, since they are put into JSON as they are.
batch=$(awk -v column="$column" '
    /^[[:space:]]*(#|$)/ { next }
    NF != 4 || $1 !~ /^[A-Za-z0-9_*.-]+$/ || $2 !~ /^[0-9]+$/ || $column !~ /^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$/ {
        print FILENAME ":" FNR ": not NAME TTL SITE-ADDRESS RECOVERY-ADDRESS" >"/dev/stderr"
        bad = 1
        next
    }
    {
        printf "%s{\"Action\":\"UPSERT\",\"ResourceRecordSet\":{\"Name\":\"%s\",\"Type\":\"A\",\"TTL\":%s,", comma, $1, $2
        printf "\"ResourceRecords\":[{\"Value\":\"%s\"}]}}", $column
        comma = ","
    }
    END {
        if (bad) exit 1
        if (!comma) { print FILENAME ": no record" >"/dev/stderr"; exit 1 }
    }' "$RECORDS")

change=$(aws route53 change-resource-record-sets --hosted-zone-id "$ZONE_ID" \
    --change-batch "{\"Comment\":\"Sparesite $1\",\"Changes\":[$batch]}" --query ChangeInfo.Id --output text)
aws route53 wait resource-record-sets-changed --id "$change"
