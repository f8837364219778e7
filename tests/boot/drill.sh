#!/usr/bin/env bash
# A drill of a real guest, as its owner would run it: captured, drilled straight from the vault with a probe in the guest,
# and what `status` then says on site. Called through tests/setup.sh, with SPARESITE_BIN.
#
#   tests/boot/drill.sh [FOLDER]     FOLDER keeps the reports (default: none is kept)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SPARESITE_CACHE:?run it through tests/setup.sh}
PATH=${SPARESITE_BIN:?the folder with both programs}:$PATH

image=$cache/guest/$("$here/build-guest.sh" --name idle)
"$here/build-guest.sh" "$image"
work=$(mktemp -d "$cache/drill.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp --sparse=always "$image" "$work/vm.raw"
cat >"$work/gateway.toml" <<TOML
state = "$work/state"
[vault]
url = "file://$work/vault"
key = "$work/gateway.key"
[[policy]]
name = "servers"
rpo = "1h"
consistency = "none"
[[vm]]
name = "vm"
policy = "servers"
source = { disks = ["$work/vm.raw"] }
TOML
cat >"$work/drill.toml" <<'TOML'
[[vm]]
name = "vm"
rpo = "1h"
rto = "1h"
memory = "512 MiB"
[[vm.probe]]
guest = ["uname", "-s"]
expect = "Linux"
TOML
(umask 077 && echo "correct horse battery staple, for drills" >"$work/passphrase")
export SPARESITE_KIT=$work/kit SPARESITE_PASSPHRASE_FILE=$work/passphrase
gateway() { sparesite-gateway "$@" --config "$work/gateway.toml" --quiet; }
sparesite-gateway init --vault "file://$work/vault" --key "$work/gateway.key" --kit "$work/kit" \
    --passphrase-file "$work/passphrase" >/dev/null
gateway sync --json >/dev/null

reports=$work/drills
sparesite-restore drill --config "$work/drill.toml" --reports "$reports" --cache-folder "$work" --json \
    --accel "${DRILL_ACCEL:-tcg}" >"$work/drill.json"
# It has run once: the second one, of which nothing is booted, has it in its chain.
sparesite-restore drill --dry-run --reports "$reports" --cache-folder "$work" --json >"$work/dry.json" 2>/dev/null
gateway sync --json >/dev/null
gateway status --json >"$work/status.json"

python3 - "$work" <<'PYTHON'
import hashlib, json, pathlib, sys

work = pathlib.Path(sys.argv[1])
told = json.loads((work / "drill.json").read_text())
report, vm = told["report"], told["report"]["vms"][0]
print(f"drill: {vm['level']} in {vm['measured_rto_seconds']} s, {vm['boot']['sign']}, the guest read {vm['boot']['read_bytes']:,} bytes, "
      f"{report['cost']['fetched_bytes']:,} fetched")


def demand(what, holds):
    if not holds:
        sys.exit(f"drill: {what} does not hold:\n{json.dumps(told, indent=1)[:6000]}")


demand("passed, with its probe", vm["passed"] and vm["level"] == "probed" and vm["probes"][0]["passed"])
demand("preflight foretold it", vm["preflight"]["verdict"] == "boots")
demand("it was shut down in order", vm["shutdown"].startswith("it shut down"))
demand("targets were met", not told["findings"])
written = pathlib.Path(told["json"])
demand("the report is the file", json.loads(written.read_text()) == report)
picture = (written.parent / vm["screenshot"]["file"]).read_bytes()
demand("there is a picture", picture.startswith(b"\x89PNG") and hashlib.sha256(picture).hexdigest() == vm["screenshot"]["sha256"])
demand("the page has it", "data:image/png;base64," in pathlib.Path(told["html"]).read_text())
dry = json.loads((work / "dry.json").read_text())["report"]
demand("the next report names this one", dry["previous"]["sha256"] == hashlib.sha256(written.read_bytes()).hexdigest())
demand("nothing breaks the chain", dry["earlier_reports"] == {"count": 1, "first_break": None})
status = json.loads((work / "status.json").read_text())
proof = status["vms"][0]["proof"]
demand("status has the proof", proof and proof["level"] == "probed" and proof["passed"])
PYTHON
if [[ -n ${1:-} ]]; then
    mkdir -p "$1"
    cp "$reports"/* "$1"
fi
