#!/usr/bin/env bash
# The journey of failover.sh on a REAL account of AWS. It costs money: half a dollar, and it says how much first. Three guests go into a
# vault on S3, and by `failover --test` into instances in the isolated network; their disks are read back by AWS's own client and
# compared byte for byte, their consoles and screens saved and looked at; all is taken away, and counted by its tag. Called by
# `make test-cloud`, through tests/setup.sh test; it builds the programs, where SPARESITE_BIN has none. It wants a Debian machine, best one in
# the region.
#
#   tests/boot/test-cloud.sh               with the credentials of the environment (`aws`' own chain), and
#     SPARESITE_CLOUD_ACCOUNT=123456789012    consent: the account whose money may be spent; another one is refused
#     AWS_REGION=eu-central-1                 where
#     SPARESITE_CLOUD_TERRAFORM=FOLDER        terraform/aws/examples/one-site as it was applied there: networks, sweep, key
#     SPARESITE_CLOUD_VAULT=s3://…            optional: an empty vault's place, such as that of the example, whose locks keep what is
#                                             put there; without it a bucket of its own, removed at the end
#     SPARESITE_CLOUD_GATEWAY_PROFILE=NAME    optional: an AWS profile that takes the gateway's role, to prove that role (with a vault)
#     SPARESITE_CLOUD_RESTORE_PROFILE=NAME    optional: the same for cloud-restore's role
#     SPARESITE_CLOUD_USD=2                   it refuses to begin where the estimate is above that
#     SPARESITE_CLOUD_HOURS=3                 the deadline: when the cloud tears everything down, whatever became of this program
#     SPARESITE_CLOUD_REPORT=FOLDER           where the evidence goes; ./test-cloud-TIME unless told
#   tests/boot/test-cloud.sh --rehearse    the same against the strict stand-in, on this machine: no account, no money. What AWS's
#                                          hypervisor would do, QEMU does, and its serial line is given to the stand-in as the console
set -euo pipefail
if [[ -z ${SPARESITE_BIN:-} ]]; then
    (cd "$(dirname "${BASH_SOURCE[0]}")/../.." && cargo build --release --locked -p gateway@0.1.0 -p cloud-restore --bins)
    SPARESITE_BIN=${CARGO_TARGET_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target}/release
fi
# shellcheck source=tests/boot/journey.sh
. "$(dirname "${BASH_SOURCE[0]}")/journey.sh"

rehearse=
case ${1:-} in
--rehearse) rehearse=1 ;;
'') ;;
*) fail "usage: test-cloud.sh [--rehearse]" ;;
esac
hours=${SPARESITE_CLOUD_HOURS:-3}
report=${SPARESITE_CLOUD_REPORT:-test-cloud-$(date -u +%Y%m%dT%H%M%SZ)}
url=aws begun='' run='' bucket=''

# with PROFILE COMMAND…: with the credentials of an AWS profile, or with those of the environment where there is none.
with() {
    local profile=$1
    shift
    if [[ -z $profile ]]; then
        "$@"
    else
        env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY -u AWS_SESSION_TOKEN AWS_PROFILE="$profile" "$@"
    fi
}
restore() { with "${SPARESITE_CLOUD_RESTORE_PROFILE:-}" sparesite-restore "$@"; }

runs() { restore runs --json | "$python" -c 'import json, sys; print(len(json.load(sys.stdin)["runs"]))'; }

# What was made goes, whatever happened. Where it does not, the vault and the kit stay, and it is said what is left to do.
clean_up() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $begun && $(runs || true) != 0 ]] && ! restore undo journey --quiet >&2; then
        say "NOT TAKEN AWAY. The cloud does it at the deadline, $hours h after the run began. By hand:"
        say "  SPARESITE_KIT=$work/kit SPARESITE_PASSPHRASE_FILE=$work/passphrase sparesite-restore undo journey"
        say "  sparesite-restore sweep RUN --region $AWS_REGION       # RUN: the tag sparesite-run of what is there"
        [[ -z $bucket ]] || say "  and, after that, the bucket $bucket"
        stop_stand_in
        exit 1
    fi
    [[ -z $bucket ]] || account bucket "$bucket" --remove >/dev/null || { say "the bucket $bucket is still there: remove it"; code=1; }
    stop_stand_in
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

[[ $hours =~ ^[1-9][0-9]?$ ]] || fail "SPARESITE_CLOUD_HOURS is a whole number of hours, 1 to 99"
if [[ -n $rehearse ]]; then
    start_stand_in
    url=aws
    SPARESITE_CLOUD_ACCOUNT=${SPARESITE_CLOUD_ACCOUNT:-123456789012}
    # Roles taken by a key, as the example's output gateway_credentials has it.
    for profile in gateway cloud-restore; do
        printf '[profile %s]\nregion = %s\nrole_arn = arn:aws:iam::123456789012:role/rehearsal-%s\nsource_profile = key\n' \
            "$profile" "$AWS_REGION" "$profile"
    done >"$work/config"
    printf '[key]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$work/credentials"
    export AWS_CONFIG_FILE=$work/config AWS_SHARED_CREDENTIALS_FILE=$work/credentials
    SPARESITE_CLOUD_GATEWAY_PROFILE=gateway SPARESITE_CLOUD_RESTORE_PROFILE=cloud-restore
else
    [[ -z $(env | grep '^AWS_ENDPOINT_URL' || true) ]] || fail "AWS_ENDPOINT_URL is set: this is for a real account; --rehearse is not"
    [[ ${SPARESITE_CLOUD_ACCOUNT:-} =~ ^[0-9]{12}$ ]] ||
        fail "this spends money: say SPARESITE_CLOUD_ACCOUNT=<the twelve digits of the account>, or --rehearse (see the head of $0)"
    [[ -n ${AWS_REGION:-} ]] || fail "name the region: AWS_REGION"
    [[ -n ${SPARESITE_CLOUD_TERRAFORM:-} ]] || fail "name the applied Terraform of the site: SPARESITE_CLOUD_TERRAFORM=FOLDER"
fi
found=$(account identity | "$python" -c 'import json, sys; print(json.load(sys.stdin)["Account"])')
[[ $found == "$SPARESITE_CLOUD_ACCOUNT" ]] ||
    fail "the credentials are of account $found, the consent is for $SPARESITE_CLOUD_ACCOUNT: nothing was done"

# Where it goes, and what it costs.
if [[ -n $rehearse ]]; then
    account head --key >"$work/head.toml"
else
    terraform -chdir="$SPARESITE_CLOUD_TERRAFORM" output -raw plan_toml >"$work/head.toml"
fi
"$python" - "$work/head.toml" "$AWS_REGION" <<'PYTHON' || fail "another plan's head is needed, see above"
import sys, tomllib

head = tomllib.load(open(sys.argv[1], "rb"))
if head["region"] != sys.argv[2]:
    sys.exit(f"Terraform made the site in {head['region']}, and AWS_REGION is {sys.argv[2]}")
if "deadline" not in head or not any("test" in subnet for subnet in head["subnet"]):
    sys.exit("it has no [deadline], or no subnet has a twin in the test network")
PYTHON
group=$("$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["deadline"].get("group", "default"))' "$work/head.toml")
say "account $found, region $AWS_REGION, torn down by the cloud after $hours h at the latest"
make_guests
sparesite-restore plan prices >"$work/prices.toml"
dollars=$("$python" "$here/journey.py" estimate "$work" "$work/prices.toml" "$hours")
say "at most about \$$dollars, by the prices of us-east-1 that come with the program; other regions ask up to half more"
"$python" -c 'import sys; sys.exit(float(sys.argv[1]) > float(sys.argv[2]))' "$dollars" "${SPARESITE_CLOUD_USD:-2}" ||
    fail "that is more than SPARESITE_CLOUD_USD=${SPARESITE_CLOUD_USD:-2}: nothing was done"
[[ -n $rehearse ]] || { say "Ctrl-C within 15 s, and nothing happens"; sleep 15; }
mkdir -p "$report"

vault=${SPARESITE_CLOUD_VAULT:-}
if [[ -z $vault ]]; then
    bucket=sparesite-test-$found-$(date -u +%Y%m%d%H%M%S)
    account bucket "$bucket" >/dev/null
    vault=s3://$bucket/site
fi
make_site "$vault" "$work/head.toml"
with "${SPARESITE_CLOUD_GATEWAY_PROFILE:-}" sparesite-gateway sync --config "$work/gateway.toml" --quiet
code=0
restore plan check "$work/plan.toml" >"$report/plan-check.txt" || code=$?
[[ $code -eq 0 || $code -eq 3 ]] || fail "plan check ended with $code: $(<"$report/plan-check.txt")"

begun=1 code=0 began=$(date +%s)
restore failover "$work/plan.toml" --test --deadline "${hours}h" --no-probes --reports "$report/run" --json >"$work/run.json" || code=$?
[[ $code -eq 0 || $code -eq 3 ]] || fail "failover --test ended with $code; $report/run has what it did"
run=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["run"])' "$work/run.json")
took=$(($(date +%s) - began))
say "run $run: three instances in $took s"

# count KIND…: how many of these exist with the run's tag; schedules by their name. All kinds without.
count() {
    account left sparesite-run "$run" --schedules "sparesite-$run" --group "$group" |
        "$python" -c 'import json, sys; left = json.load(sys.stdin); print(sum(len(left[kind]) for kind in sys.argv[1:] or left))' "$@"
}
[[ $(count instances) -eq 3 ]] || fail "not three instances have the run's tag"
[[ $(count snapshots) -eq 4 ]] || fail "not four snapshots have the run's tag"
[[ $(count schedules) -eq 1 ]] || fail "no deadline stands in the cloud"

# In a rehearsal QEMU boots what was read back, and what it says is what the console says.
rehearsed() {
    boot "$2" "$work/back.raw"
    ask POST "$AWS_ENDPOINT_URL/strict/console/$(of "$1" instance)" "$work/serial" >/dev/null
}
if [[ -n $rehearse ]]; then
    back_all rehearsed
else
    back_all
fi
# AWS keeps what a Nitro instance said on its serial line, as it says it.
for vm in bios uefi mended; do
    instance=$(of "$vm" instance)
    for try in {1..40}; do
        seen=$(account console "$instance" "$report")
        [[ $seen == *'"login": true'* ]] && break
        ((try < 40)) || fail "$vm ($instance) shows no login prompt: $report/$instance.txt and .jpg"
        sleep 15
    done
    echo "$vm: a login prompt on the console of $instance"
done

# Taken away, and counted.
restore undo journey --quiet >&2
for try in {1..20}; do
    left=$(count)
    [[ $left -eq 0 ]] && break
    ((try < 20)) || fail "$left things still have the tag sparesite-run=$run"
    sleep 15
done
begun=
cp "$work/run.json" "$work/head.toml" "$report/"
if [[ -n $rehearse ]]; then
    no_violations
    asked=$(ask GET "$AWS_ENDPOINT_URL/strict/requests")
    for role in gateway cloud-restore; do
        [[ $asked == *":role/rehearsal-$role\""* ]] || fail "nobody took the role $role: the profile changed nothing"
    done
fi
{
    if [[ -n $rehearse ]]; then
        echo "REHEARSED against the stand-in, on this machine: nothing of this was AWS."
    else
        echo "On AWS, account $found, region $AWS_REGION, $(date -u +%FT%TZ)."
    fi
    echo "Run $run: three instances in $took s; three disks read back byte for byte, one as it was converted; all consoles with a login prompt."
    echo "Then taken away: nothing has the tag sparesite-run=$run. Vault: $vault."
    echo "Roles: gateway by ${SPARESITE_CLOUD_GATEWAY_PROFILE:-the environment}, cloud-restore by ${SPARESITE_CLOUD_RESTORE_PROFILE:-the environment}."
} | tee "$report/summary.txt"
