#!/usr/bin/env bash
# Builds a small Debian 12 guest that boots by BIOS: one MBR disk, one ext4 partition, a kernel
# with virtio, NVMe and Hyper-V drivers, the QEMU guest agent, a login prompt on the serial line.
# Nothing is mounted and no loop device is used, so it runs in a container too.
#
#   tests/boot/build-guest.sh IMAGE      raw and sparse; does nothing if IMAGE is there
#
# Takes about a minute and 0.4 GB. Root has no password: never attach a network to it.
set -euo pipefail

image=${1:?usage: build-guest.sh IMAGE}
[[ -e $image ]] && exit 0

# mmdebstrap and mke2fs -d must read and keep what belongs to root in the guest.
if [[ $(id -u) -ne 0 ]]; then
    sudo "$0" "$image"
    exec sudo chown "$(id -u):$(id -g)" "$image"
fi

readonly disk_mib=1024 gap_mib=1                    # the gap after the MBR holds GRUB's core image
readonly fs_uuid=5a7e517e-0000-4000-8000-00000000d15c disk_signature=0x5a7e517e
export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000

mkdir -p "$(dirname "$image")"
work=$(mktemp -d "$image.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The package source is this machine's own where it has one for Debian 12, else mmdebstrap's default.
source_of_packages() {
    local list
    for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        if grep -qs '^[^#]*bookworm' "$list"; then
            echo "$list"
            return
        fi
    done
}

make_tree() {
    local -a mirror
    mapfile -t mirror < <(source_of_packages)
    # dpkg's path exclusions keep the guest small, as its bytes go through every test.
    mmdebstrap --quiet --mode=root --variant=minbase \
        --include=linux-image-cloud-amd64,systemd-sysv,udev,dbus,e2fsprogs,iproute2,qemu-guest-agent \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --aptopt='APT::Install-Recommends "false"' \
        bookworm "$work/tree" "${mirror[@]}"

    echo vm >"$work/tree/etc/hostname"
    echo "UUID=$fs_uuid / ext4 defaults 0 1" >"$work/tree/etc/fstab"
    sed -i 's/^root:[^:]*:/root::/' "$work/tree/etc/shadow"
    rm -rf "$work/tree"/var/cache/apt/* "$work/tree"/var/lib/apt/lists/*
    mkdir -p "$work/tree/boot/grub" "$work/tree/srv"
    cat >"$work/tree/boot/grub/grub.cfg" <<CFG
serial --unit=0 --speed=115200
terminal_output serial console
linux /vmlinuz root=UUID=$fs_uuid ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
CFG
}

make_file_system() {
    truncate -s "$((disk_mib - gap_mib))M" "$work/root.ext4"
    # GRUB 2.06 reads ext4 neither with metadata_csum_seed nor with orphan_file.
    mke2fs -q -t ext4 -O ^metadata_csum_seed,^orphan_file -L root -U "$fs_uuid" \
        -E "hash_seed=$fs_uuid,root_owner=0:0" -d "$work/tree" "$work/root.ext4"
}

make_disk() {
    local modules=/usr/lib/grub/i386-pc disk=$work/disk.raw
    truncate -s "${disk_mib}M" "$disk"
    sfdisk -q "$disk" <<TABLE
label: dos
label-id: $disk_signature
start=${gap_mib}MiB, type=83, bootable
TABLE
    grub-mkimage -O i386-pc -d "$modules" -p '(hd0,msdos1)/boot/grub' -o "$work/core.img" \
        biosdisk part_msdos ext2 normal linux serial terminal
    local core_bytes
    core_bytes=$(stat -c %s "$work/core.img")
    ((core_bytes <= gap_mib * 1048576 - 512)) || { echo "build-guest: core image of $core_bytes bytes exceeds the gap" >&2; exit 1; }
    # 440 bytes of code; the disk signature and the partition table follow in the same sector.
    dd if="$modules/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
    dd if="$work/root.ext4" of="$disk" bs=1M seek="$gap_mib" conv=notrunc,sparse status=none
    mv "$disk" "$image"
}

make_tree
make_file_system
make_disk
