#!/usr/bin/env bash
# Builds the Debian package with dpkg-deb alone.
#
#   packaging/deb.sh [OUTPUT-FOLDER]     XZ_LEVEL: 0 for a fast one, 6 unless told
#
# SPARESITE_BIN: a folder with both programs, built already; else they are built for release.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
output=${1:-$root/target/deb}

command -v dpkg-deb >/dev/null || { echo "deb: dpkg-deb is not here: build on Debian or Ubuntu" >&2; exit 1; }
if [[ -z ${SPARESITE_BIN:-} ]]; then
    (cd "$root" && cargo build --release --locked -p gateway@0.1.0 -p cloud-restore --bins)
    SPARESITE_BIN=${CARGO_TARGET_DIR:-$root/target}/release
fi
programs=(sparesite-gateway sparesite-restore)
"$here/glibc.sh" "${programs[@]/#/$SPARESITE_BIN/}"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"
into() { install -D -m "$1" "$2" "$tree/$3"; }
# With links to what lies elsewhere in the package.
into_doc() {
    sed -E 's,\]\(((\.\./)*)packaging/scripts/,](\1examples/,g; s,\]\(CHANGELOG\.md\),](changelog.gz),g; s,\]\(LICENSE\),](copyright),g' "$1" |
        into 0644 /dev/stdin "usr/share/doc/sparesite/$2"
}

for program in "${programs[@]}"; do
    into 0755 "$SPARESITE_BIN/$program" "usr/bin/$program"
    "$SPARESITE_BIN/$program" completions bash | into 0644 /dev/stdin "usr/share/bash-completion/completions/$program"
    "$SPARESITE_BIN/$program" completions zsh | into 0644 /dev/stdin "usr/share/zsh/vendor-completions/_$program"
    "$SPARESITE_BIN/$program" completions fish | into 0644 /dev/stdin "usr/share/fish/vendor_completions.d/$program.fish"
    mkdir -p "$tree/usr/share/man/man1"
    "$SPARESITE_BIN/$program" man "$tree/usr/share/man/man1"
done
# Of one time, so that the same programs make the same package.
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
gzip --best --no-name "$tree"/usr/share/man/man1/*.1
for unit in sparesite-gateway.service sparesite-drill.service sparesite-drill.timer; do
    into 0644 "$here/$unit" "usr/lib/systemd/system/$unit"
done
into 0600 "$here/gateway.toml" etc/sparesite/gateway.toml
chmod 0700 "$tree/etc/sparesite"
into 0644 "$root/LICENSE" usr/share/doc/sparesite/copyright
into_doc "$root/README.md" README.md
# What an operator without a network needs, and what that links to; the format's document is in every vault too.
for document in architecture.md configuration.md hypervisors.md recovery-plans.md rehearsal.md runbook.md threat-model.md unproven.md vault-format.md runbook/ decisions/; do
    find "$root/docs/${document%/}" -type f -name '*.md' -printf '%P|%p\n' | while IFS='|' read -r name path; do
        into_doc "$path" "docs/$document$name"
    done
done
# For the day that there is no network of the site's any more.
find "$root/terraform" -type f -not -path '*/.terraform/*' -printf '%P\n' | while IFS= read -r name; do
    into "$([[ $name = *.sh ]] && echo 0755 || echo 0644)" "$root/terraform/$name" "usr/share/doc/sparesite/terraform/$name"
done
for folder in lvm zfs hyper-v vmware; do
    for script in "$here/scripts/$folder"/*; do
        into "$([[ $script = *.sh ]] && echo 0755 || echo 0644)" "$script" "usr/share/doc/sparesite/examples/$folder/${script##*/}"
    done
done
into_doc "$here/scripts/README.md" examples/README.md
gzip --best --no-name --stdout "$root/CHANGELOG.md" | into 0644 /dev/stdin usr/share/doc/sparesite/changelog.gz

mkdir -p "$tree/DEBIAN"
for script in postinst prerm postrm; do
    into 0755 "$here/deb/$script" "DEBIAN/$script"
done
echo /etc/sparesite/gateway.toml >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: sparesite
Version: $version
Architecture: amd64
Maintainer: The Sparesite authors <sparesite@sparesite.invalid>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: libc6 (>= 2.34), libgcc-s1, ca-certificates
Recommends: openssh-client, qemu-utils
Suggests: qemu-system-x86, ovmf, guestfish
Section: admin
Priority: optional
Description: keeps the disks of VMs, encrypted, in object storage, and brings them back
 The gateway captures the disks of a site's VMs into an encrypted vault in
 object storage; the restore program brings them back from it anywhere.
 .
 Nothing is enabled by installing it.
CONTROL

find "$tree" -exec touch --no-dereference --date="@$epoch" {} +
mkdir -p "$output"
package=$output/sparesite_${version}_amd64.deb
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group -Zxz -z"${XZ_LEVEL:-6}" --build "$tree" "$package" >/dev/null
echo "$package"
