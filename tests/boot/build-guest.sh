#!/usr/bin/env bash
# Builds a small Debian 12 guest: ext4 root, a kernel with virtio, NVMe and Hyper-V drivers, the
# QEMU guest agent, a login prompt on the serial line.
# Nothing is mounted and no loop device is used, so it runs in a container too.
#
#   tests/boot/build-guest.sh IMAGE [VARIANT]     raw and sparse; does nothing if IMAGE is there
#   tests/boot/build-guest.sh --name VARIANT      the image's file name, which follows its recipe
#
# VARIANT idle (default): MBR, boots by BIOS. VARIANT writer: GPT, boots by BIOS and by UEFI, has
# what tests/boot/guest/ holds: a writer that starts at boot, and freeze hooks for the guest agent.
# Takes about a minute and 0.5 GB. Root has no password: never attach a network to it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

recipe_name() {
    local -a recipe=("$here/build-guest.sh")
    [[ $1 == writer ]] && recipe+=("$here"/guest/*)
    local digest
    digest=$(cat "${recipe[@]}" | sha256sum | cut -c1-12)
    case $1 in
    idle) echo "debian-12-$digest.raw" ;;
    *) echo "debian-12-$1-$digest.raw" ;;
    esac
}

usage='usage: build-guest.sh IMAGE [idle|writer] | --name VARIANT'
if [[ ${1:-} == --name ]]; then
    recipe_name "${2:?$usage}"
    exit 0
fi
image=${1:?$usage}
variant=${2:-idle}
[[ $variant == idle || $variant == writer ]] || { echo "$usage" >&2; exit 2; }
[[ -e $image ]] && exit 0

# mmdebstrap and mke2fs -d must read and keep what belongs to root in the guest.
if [[ $(id -u) -ne 0 ]]; then
    sudo "$0" "$image" "$variant"
    exec sudo chown "$(id -u):$(id -g)" "$image"
fi

readonly fs_uuid=5a7e517e-0000-4000-8000-00000000d15c disk_signature=0x5a7e517e
readonly disk_guid=5a7e517e-0000-4000-8000-00000000d15d
# GRUB's core image lies in the gap after the MBR, or in a partition of its own on GPT.
readonly core_mib=1 esp_mib=15
case $variant in
idle) readonly disk_mib=1024 root_mib=$core_mib end_mib=0 ;;
writer) readonly disk_mib=1536 root_mib=$((1 + core_mib + esp_mib)) end_mib=1 ;;
esac
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
    local packages=linux-image-cloud-amd64,systemd-sysv,udev,dbus,e2fsprogs,iproute2,qemu-guest-agent
    [[ $variant == writer ]] && packages+=,python3,xfsprogs
    mapfile -t mirror < <(source_of_packages)
    # dpkg's path exclusions keep the guest small, as its bytes go through every test.
    mmdebstrap --quiet --mode=root --variant=minbase \
        --include="$packages" \
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

# The second disk has any file system, or is absent: the writer then does not start.
add_writer() {
    local tree=$work/tree
    echo "LABEL=data /data auto defaults,nofail 0 0" >>"$tree/etc/fstab"
    mkdir -p "$tree/data" "$tree/etc/qemu" "$tree/etc/systemd/journald.conf.d"
    install -D -m 644 -t "$tree/opt/writer" "$here/guest/ledger.py" "$here/guest/writer.py"
    install -D -m 644 -t "$tree/etc/systemd/system" "$here/guest/writer.service"
    install -D -m 755 -t "$tree/etc/qemu" "$here/guest/fsfreeze-hook"
    install -D -m 644 -t "$tree/etc/qemu" "$here/guest/qemu-ga.conf"
    ln -s /etc/systemd/system/writer.service "$tree/etc/systemd/system/multi-user.target.wants/"
    # The guest's own chatter is not the load that is measured.
    printf '[Journal]\nStorage=volatile\n' >"$tree/etc/systemd/journald.conf.d/volatile.conf"
    chroot "$tree" systemctl mask --quiet systemd-timesyncd apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-networkd-wait-online.service
}

make_file_system() {
    truncate -s "$((disk_mib - root_mib - end_mib))M" "$work/root.ext4"
    # GRUB 2.06 reads ext4 neither with metadata_csum_seed nor with orphan_file.
    mke2fs -q -t ext4 -O ^metadata_csum_seed,^orphan_file -L root -U "$fs_uuid" \
        -E "hash_seed=$fs_uuid,root_owner=0:0" -d "$work/tree" "$work/root.ext4"
}

# core_image PARTITION-MODULE PREFIX
core_image() {
    grub-mkimage -O i386-pc -d "$modules" -p "$2" -o "$work/core.img" \
        biosdisk "$1" ext2 normal linux serial terminal
    local core_bytes
    core_bytes=$(stat -c %s "$work/core.img")
    ((core_bytes <= core_mib * 1048576 - 512)) || { echo "build-guest: core image of $core_bytes bytes exceeds its $core_mib MiB" >&2; exit 1; }
}

little_endian_at() {
    local file=$1 offset=$2 value=$3 shift
    for shift in 0 8 16 24 32 40 48 56; do
        printf '%b' "\\x$(printf %02x $((value >> shift & 255)))"
    done | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
}

lay() { dd if="$1" of="$disk" conv=notrunc,sparse status=none bs=1M seek="$2"; }

mbr_disk() {
    sfdisk -q "$disk" <<TABLE
label: dos
label-id: $disk_signature
start=${root_mib}MiB, type=83, bootable
TABLE
    core_image part_msdos '(hd0,msdos1)/boot/grub'
    # 440 bytes of code; the disk signature and the partition table follow in the same sector.
    dd if="$modules/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
}

gpt_disk() {
    sfdisk -q "$disk" <<TABLE
label: gpt
label-id: $disk_guid
start=1MiB, size=${core_mib}MiB, type=21686148-6449-6E6F-744E-656564454649
start=$((1 + core_mib))MiB, size=${esp_mib}MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=${root_mib}MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
TABLE
    core_image part_gpt '(hd0,gpt3)/boot/grub'
    # On GPT the core image does not lie right behind the boot sector. GRUB's `kernel_sector` is at
    # 0x5c of boot.img; the list of what remains to be loaded is at 0x1f4 of the core's first sector.
    cp "$modules/boot.img" "$work/boot.img"
    little_endian_at "$work/boot.img" $((0x5c)) 2048
    little_endian_at "$work/core.img" $((0x1f4)) 2049
    dd if="$work/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    lay "$work/core.img" 1

    truncate -s "${esp_mib}M" "$work/esp.fat"
    grub-mkimage -O x86_64-efi -d /usr/lib/grub/x86_64-efi -p '(hd0,gpt3)/boot/grub' -o "$work/bootx64.efi" \
        part_gpt ext2 normal linux serial terminal
    mformat -i "$work/esp.fat" -N 5a7e517e -v ESP ::
    mmd -i "$work/esp.fat" ::/EFI ::/EFI/BOOT
    mcopy -i "$work/esp.fat" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
    lay "$work/esp.fat" $((1 + core_mib))
}

make_disk() {
    local modules=/usr/lib/grub/i386-pc disk=$work/disk.raw
    truncate -s "${disk_mib}M" "$disk"
    case $variant in
    idle) mbr_disk ;;
    writer) gpt_disk ;;
    esac
    lay "$work/root.ext4" "$root_mib"
    mv "$disk" "$image"
}

make_tree
[[ $variant == writer ]] && add_writer
make_file_system
make_disk
