# shellcheck shell=sh disable=SC2016 # awk reads what is quoted
# Runs as root within the guest that is mended, while it does not run. What each function changes is kept first, so that
# undo.sh can put it back on the way home. R is empty; a test sets it to a tree.
set -u
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
export PATH
R=${R:-}
before=$R/var/lib/sparesite/conversion

told() { printf '%s\t%s\t%s\n' "$1" "$2" "$3"; }
mended() { told mended "$1" "$2"; }
left() { told left "$1" "$2"; }

# begin: a second conversion keeps what the first one found.
begin() {
    mkdir -p "$before/files" && chmod 700 "$before" || exit 1
    touch "$before/changed" "$before/made"
    cat >"$before/undo.sh" <<'UNDO'
#!/bin/sh
# Puts back what was changed so that this machine could start in the cloud. Run it as root, then start the machine anew.
cd "$(dirname "$0")" || exit 1
while read -r path; do rm -f "$path"; done <made
while read -r path; do
    mkdir -p "$(dirname "$path")" && cp -a "files$path" "$path" || exit 1
done <changed
if [ -e initramfs ]; then
    if command -v update-initramfs >/dev/null; then update-initramfs -u -k all; else dracut --force --regenerate-all; fi
fi
UNDO
    chmod 700 "$before/undo.sh"
}

noted() { grep -Fqx -e "$2" "$before/$1"; }

# keep FILE: before it is changed, or made.
keep() {
    noted changed "$1" || noted made "$1" && return 0
    if [ -e "$R$1" ] || [ -L "$R$1" ]; then
        mkdir -p "$before/files$(dirname "$1")" && cp -a "$R$1" "$before/files$1" || return 1
        echo "$1" >>"$before/changed"
    else
        echo "$1" >>"$before/made"
    fi
}

# aside FILE: it is kept, and no longer there.
aside() { keep "$1" && rm -f "$R$1"; }

# put FILE MODE: what stands on the input becomes its content. In place, so that owner and labels stay.
put() {
    keep "$1" && mkdir -p "$R$(dirname "$1")" && cat >"$R$1.sparesite-new" || return 1
    if [ -e "$R$1" ]; then cat "$R$1.sparesite-new" >"$R$1"; else cp "$R$1.sparesite-new" "$R$1" && chmod "$2" "$R$1"; fi
    set -- "$1" "$?"
    rm -f "$R$1.sparesite-new"
    return "$2"
}

# edit FILE COMMAND…: through a filter; a file that does not change by it is let alone. Fails where it did not change.
edit() {
    edited=$1
    shift
    [ -f "$R$edited" ] || return 1
    "$@" <"$R$edited" >"$before/edited" || return 1
    cmp -s "$before/edited" "$R$edited" && { rm -f "$before/edited"; return 1; }
    put "$edited" 644 <"$before/edited"
    set -- "$?"
    rm -f "$before/edited"
    return "$1"
}

# fstab_uuid DEVICE POINT UUID
fstab_uuid() {
    if edit /etc/fstab awk -v from="$1" -v point="$2" -v to="UUID=$3" \
        '$1 == from && $2 == point { sub(/[^ \t]+/, to) } { print }'; then
        mended fstab-device-name "/etc/fstab: $2 by UUID=$3, before by $1"
    else
        left fstab-device-name "/etc/fstab: the line of $1 was not found"
    fi
}

# fstab_nofail DEVICE POINT
fstab_nofail() {
    if edit /etc/fstab awk -v from="$1" -v point="$2" \
        '$1 == from && $2 == point { $4 = ($4 == "" ? "defaults" : $4) ",nofail,x-systemd.device-timeout=10s" } { print }'; then
        mended fstab-missing-device "/etc/fstab: boot no longer waits for $1 ($2), which is not there"
    else
        left fstab-missing-device "/etc/fstab: the line of $1 was not found"
    fi
}

loader_files() {
    (cd "$R/" && ls -d boot/grub/grub.cfg boot/grub2/grub.cfg boot/grub/menu.lst boot/grub/grub.conf boot/extlinux/extlinux.conf \
        boot/syslinux/syslinux.cfg boot/efi/EFI/*/grub.cfg boot/loader/entries/*.conf boot/efi/loader/entries/*.conf \
        efi/loader/entries/*.conf etc/default/grub etc/kernel/cmdline 2>/dev/null)
}

# root_uuid DEVICE UUID: wherever a boot loader, or what its configuration is made of, names the root.
root_uuid() {
    from=$(printf %s "$1" | sed 's/[.[\*^$|]/\\&/g')
    count=0
    for file in $(loader_files); do
        edit "/$file" sed -e "s|root=$from\([[:space:]\"']\)|root=UUID=$2\1|g" -e "s|root=$from\$|root=UUID=$2|" &&
            count=$((count + 1))
    done
    environment_words "s|root=$from\([[:space:]]\)|root=UUID=$2\1|;s|root=$from\$|root=UUID=$2|" && count=$((count + 1))
    if [ "$count" -gt 0 ]; then
        mended root-by-device-name "the boot loader: root=UUID=$2, before root=$1 ($count files)"
    else
        left root-by-device-name "no boot loader's file has root=$1"
    fi
}

# GRUB's environment block has a fixed size: its own tool changes it (GRUB manual, "The GRUB environment block").
environment_words() {
    for file in /boot/grub2/grubenv /boot/grub/grubenv; do
        [ -f "$R$file" ] || continue
        for tool in grub2-editenv grub-editenv; do
            command -v "$tool" >/dev/null || continue
            words=$("$tool" "$R$file" list | sed -n 's/^kernelopts=//p')
            [ -n "$words" ] || continue
            new=$(printf '%s\n' "$words" | sed "$1")
            [ "$new" != "$words" ] && keep "$file" && "$tool" "$R$file" set "kernelopts=$new" && return 0
        done
    done
    return 1
}

serial_console() {
    words='console=tty0 console=ttyS0,115200n8'
    count=0
    for file in $(loader_files); do
        case $file in
        etc/default/grub)
            edit "/$file" sed "s/^\(GRUB_CMDLINE_LINUX=[\"']\)/\1$words /" || : ;;
        etc/kernel/cmdline)
            edit "/$file" sed "1s/\$/ $words/" || : ;;
        *.conf)
            edit "/$file" sed "s/^\([[:space:]]*\(options\|append\|APPEND\)[[:space:]].*\)\$/\1 $words/" && count=$((count + 1)) ;;
        *)
            edit "/$file" sed "s/^\([[:space:]]*\(linux\|linux16\|linuxefi\|kernel\|append\|APPEND\)[[:space:]].*\)\$/\1 $words/" &&
                count=$((count + 1)) ;;
        esac
    done
    if [ "$count" -gt 0 ]; then
        mended console-missing "the boot loader: the kernel speaks on the serial port ($words)"
    else
        left console-missing "no boot loader's file starts a kernel"
    fi
}

serial_login() {
    aside /etc/systemd/system/serial-getty@ttyS0.service
    [ -L "$R/etc/systemd/system/serial-getty@.service" ] && aside '/etc/systemd/system/serial-getty@.service'
    wants=/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service
    keep "$wants" && mkdir -p "$R/etc/systemd/system/getty.target.wants" &&
        ln -sf /lib/systemd/system/serial-getty@.service "$R$wants" &&
        mended no-serial-login "a login on the serial port"
}

# network_set_aside FILE…: what is bound to the machine at the site.
network_set_aside() {
    for file; do
        aside "$file" && mended network "$file is set aside"
    done
}

ifupdown_dhcp() {
    # The name on EC2 is ens5 (Nitro), enX0 (Xen) or eth0 (net.ifnames=0); those that are not there are passed over.
    {
        echo 'source /etc/network/interfaces.d/*'
        printf 'auto lo\niface lo inet loopback\n'
        for name in ens5 enX0 eth0; do printf 'allow-hotplug %s\niface %s inet dhcp\n' "$name" "$name"; done
    } | put /etc/network/interfaces 644 && mended network "/etc/network/interfaces: the first card asks by DHCP"
}

netplan_dhcp() {
    printf 'network:\n  version: 2\n  ethernets:\n    all:\n      match: {name: "e*"}\n      dhcp4: true\n      dhcp6: true\n' |
        put /etc/netplan/10-sparesite.yaml 600 && mended network "/etc/netplan/10-sparesite.yaml: all cards ask by DHCP"
}

networkd_dhcp() {
    printf '[Match]\nName=e*\n\n[Network]\nDHCP=yes\n' |
        put /etc/systemd/network/10-sparesite.network 644 &&
        mended network "/etc/systemd/network/10-sparesite.network: all cards ask by DHCP"
}

# A profile without interface-name and mac-address fits any card (nm-settings-keyfile(5)).
network_manager_dhcp() {
    printf '[connection]\nid=sparesite\ntype=ethernet\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n' |
        put /etc/NetworkManager/system-connections/sparesite.nmconnection 600 &&
        mended network "NetworkManager: all cards ask by DHCP"
}

# efi_fallback NAME UUID: the loader at the path that firmware takes without a boot entry (UEFI 2.10, 3.5.1.1). The UUID is of
# the EFI system partition, for a guest that mounts it nowhere.
efi_fallback() {
    for esp in /boot/efi /efi /boot; do
        ! fallback_in "$esp" "$1" || return 0
    done
    mkdir -p "$before/esp"
    if [ -n "$2" ] && mount -t vfat -U "$2" "$before/esp" >&2; then
        fallback_in "${before#"$R"}/esp" "$1"
        set -- "$1" "$2" "$?"
        umount "$before/esp" && rmdir "$before/esp"
        [ "$3" -ne 0 ] || return 0
    fi
    left efi-fallback-missing "no loader was found on the EFI system partition"
}

# fallback_in MOUNTED NAME
fallback_in() {
    upper=$(printf %s "$2" | tr '[:lower:]' '[:upper:]')
    boot=$1/EFI/BOOT
    for folder in "$R$1"/EFI/*/; do
        case $(basename "$folder" | tr '[:lower:]' '[:upper:]') in BOOT) continue ;; esac
        for loader in "shim$2.efi" "grub$2.efi" "systemd-boot$2.efi"; do
            [ -f "$folder$loader" ] || continue
            put "$boot/BOOT$upper.EFI" 644 <"$folder$loader" || return 1
            # shim starts GRUB that lies beside it, and GRUB may look for its configuration there.
            for more in "grub$2.efi" "mm$2.efi" grub.cfg; do
                [ ! -f "$folder$more" ] || put "$boot/$more" 644 <"$folder$more"
            done
            mended efi-fallback-missing "/EFI/BOOT/BOOT$upper.EFI, from /EFI/$(basename "$folder")/$loader"
            return
        done
    done
    return 1
}

kernels() {
    for folder in "$R"/lib/modules/*/; do
        version=$(basename "$folder")
        if [ -e "$R/boot/vmlinuz-$version" ] || [ -e "$folder/vmlinuz" ]; then echo "$version"; fi
    done
}

# with_dracut DRIVERS: for any machine, since the one that dracut sees is not the one that will start.
with_dracut() {
    touch "$before/initramfs"
    printf 'add_drivers+=" %s "\nhostonly="no"\n' "$1" | put /etc/dracut.conf.d/90-sparesite.conf 644 || return 1
    for version in $(kernels); do
        dracut --force --no-hostonly --kver "$version" >&2 || return 1
    done
}

# with_initramfs_tools DRIVERS
with_initramfs_tools() {
    touch "$before/initramfs"
    # MODULES=dep would take the drivers of the machine that this runs on.
    echo MODULES=most | put /etc/initramfs-tools/conf.d/sparesite 644 || return 1
    {
        cat "$R/etc/initramfs-tools/modules" 2>/dev/null
        echo "$1" | tr ' ' '\n'
    } >"$before/modules"
    put /etc/initramfs-tools/modules 644 <"$before/modules" || return 1
    rm -f "$before/modules"
    for version in $(kernels); do
        how=-u
        [ -s "$R/boot/initrd.img-$version" ] || how=-c
        update-initramfs "$how" -k "$version" >&2 || return 1
    done
}

# initramfs DRIVERS: by the family's own tool.
initramfs() {
    if make_initramfs "$1"; then
        mended initramfs "the initial file system of each kernel is made anew, with $1"
    else
        left initramfs "the guest's own tool could not make its initial file systems anew"
    fi
}

# Files that are new have no label, and a guest that enforces SELinux would not let anybody read them.
relabel() {
    config=$R/etc/selinux/config
    grep -Eqs '^SELINUX=(enforcing|permissive)' "$config" || return 0
    kind=$(sed -n 's/^SELINUXTYPE=//p' "$config" | tail -n 1)
    contexts=/etc/selinux/${kind:-targeted}/contexts/files/file_contexts
    if [ -f "$R$contexts" ] && command -v setfiles >/dev/null; then
        sort -u "$before/changed" "$before/made" | while read -r path; do
            [ ! -e "$R$path" ] || setfiles -F "$R$contexts" "$R$path"
        done >&2
        setfiles -F "$R$contexts" "$R/boot" "$R/var/lib/sparesite" >&2 && return 0
    fi
    touch "$R/.autorelabel"
    mended selinux "all files get their SELinux labels anew at the first start, which then starts once more"
}
