#!/usr/bin/env bash
# Builds the package of the programs in SPARESITE_BIN, and looks at what is in it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${SPARESITE_BIN:?name the folder with both programs}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "packaging: $*" >&2
    exit 1
}

"$here/scripts/check.sh"
# Debug builds of 100 MB each: at the level of a release, a minute and a half.
export XZ_LEVEL=0
package=$("$here/deb.sh" "$work" | tail -1)
again=$("$here/deb.sh" "$work/again" | tail -1)
cmp -s "$package" "$again" || fail "the same programs made another package"
dpkg-deb --extract "$package" "$work/tree"
dpkg-deb --control "$package" "$work/control"

for path in usr/bin/sparesite-gateway usr/bin/sparesite-restore usr/lib/systemd/system/sparesite-gateway.service \
    etc/sparesite/gateway.toml usr/share/man/man1/sparesite-gateway.1.gz usr/share/man/man1/sparesite-gateway-run.1.gz \
    usr/share/man/man1/sparesite-restore.1.gz usr/share/bash-completion/completions/sparesite-gateway \
    usr/share/zsh/vendor-completions/_sparesite-restore usr/share/fish/vendor_completions.d/sparesite-gateway.fish \
    usr/share/doc/sparesite/docs/configuration.md usr/share/doc/sparesite/docs/runbook/{qemu,proxmox,libvirt,hyper-v,vmware}.md \
    usr/share/doc/sparesite/copyright usr/share/doc/sparesite/examples/README.md \
    usr/share/doc/sparesite/examples/lvm/hook.sh usr/share/doc/sparesite/examples/hyper-v/checkpoint.ps1; do
    [[ -s $work/tree/$path ]] || fail "$path is not in the package"
done
[[ $(<"$work/control/conffiles") = /etc/sparesite/gateway.toml ]] || fail "the configuration is no conffile"
if dpkg-deb --contents "$package" | awk '$2 != "root/root" { found = 1 } END { exit !found }'; then
    fail "something in it belongs to somebody else than root"
fi
for script in postinst prerm postrm; do
    sh -n "$work/control/$script" || fail "$script is no script"
    if grep -vE '^ *#' "$work/control/$script" | grep -E 'systemctl +(enable|start|restart)|deb-systemd-helper +enable'; then
        fail "$script enables or starts something"
    fi
done
if [[ $(dpkg --print-architecture) = amd64 ]]; then
    "$work/tree/usr/bin/sparesite-gateway" --version >/dev/null || fail "the program does not run"
fi

unit=$work/sparesite-gateway.service
if command -v systemd-analyze >/dev/null; then
    # Where the package was not installed, its program lies elsewhere.
    sed "s|/usr/bin/sparesite-gateway|$work/tree/usr/bin/sparesite-gateway|" \
        "$work/tree/usr/lib/systemd/system/sparesite-gateway.service" >"$unit"
    said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F sparesite-gateway.service || true)
    [[ -z $said ]] || fail "systemd says of the unit: $said"
else
    "$here/../tests/skip.sh" systemd-analyze
fi
# What the daemon counts on and the documents promise, and what `systemd-analyze` would not miss.
for line in Type=notify StateDirectory=sparesite LoadCredential=gateway.key:/etc/sparesite/gateway.key Restart=on-failure \
    RestartPreventExitStatus=2 TimeoutStartSec=infinity KillMode=process; do
    grep -qxF "$line" "$work/tree/usr/lib/systemd/system/sparesite-gateway.service" || fail "the unit does not say $line"
done
grep -q '^Depends:.*\bca-certificates\b' "$work/control/control" || fail "without ca-certificates no vault is trusted"

# What was never run on the real thing says so, where it lies and in the table.
for script in "$work"/tree/usr/share/doc/sparesite/examples/{lvm,zfs,hyper-v,vmware}/*; do
    head -5 "$script" | grep -q UNTESTED || fail "$script does not say that it is untested"
done
for row in LVM ZFS Hyper-V VMware; do
    grep -E "^\| $row\b.*only documented" "$work/tree/usr/share/doc/sparesite/docs/hypervisors.md" >/dev/null ||
        fail "hypervisors.md does not say that $row is only documented"
done

# The proof of what the programs need must be able to fail.
said=$(SPARESITE_OLDEST=2.2.5 "$here/glibc.sh" "$SPARESITE_BIN/sparesite-gateway" 2>&1 || true)
grep -q 'needs GLIBC_' <<<"$said" || fail "glibc.sh finds nothing that glibc 2.2.5 lacks"
said=$(SPARESITE_OLDEST=9.9 "$here/glibc.sh" "$(command -v dpkg-deb)" 2>&1 || true)
grep -q 'needs other libraries' <<<"$said" || fail "glibc.sh finds no library that dpkg-deb needs"

# Whoever reads the documents there may have no network.
while read -r document; do
    links=$(grep -oE '\]\([^)#]+' "$document" | sed 's/^](//' | grep -vE '^[a-z]+:' || true)
    for link in $links; do
        [[ -e $(dirname "$document")/$link ]] || fail "${document#"$work/tree"} links to $link, which is not in the package"
    done
done < <(find "$work/tree/usr/share/doc/sparesite" -name '*.md')
echo "packaging: all holds"
