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
    touch "$before/paths"
    cat >"$before/undo.sh" <<'UNDO'
#!/bin/sh
# Puts back what was changed so that this machine could start in the cloud. Run it as root, then start the machine anew. What was
# changed again since is let alone, and named. The initial file systems stay: they hold the drivers of any machine.
cd "$(dirname "$0")" || exit 1
while read -r path; do
    sum=$(cksum <"$path" 2>/dev/null || echo none)
    if grep -Fqx -e "$sum $path" written; then
        rm -f "$path"
        [ ! -e "files$path" ] && [ ! -L "files$path" ] || cp -a "files$path" "$path"
    else
        echo "$path was changed since, and is let alone; as it was before: $PWD/files$path"
    fi
done <paths
UNDO
    chmod 700 "$before/undo.sh"
}

# keep FILE: before it is changed, or made.
keep() {
    ! grep -Fqx -e "$1" "$before/paths" || return 0
    if [ -e "$R$1" ] || [ -L "$R$1" ]; then
        mkdir -p "$before/files$(dirname "$1")" && cp -a "$R$1" "$before/files$1" || return 1
    fi
    echo "$1" >>"$before/paths"
}

# written: what each of them holds now, so that undo.sh sees what was changed since.
written() {
    while read -r path; do
        echo "$(cksum <"$R$path" 2>/dev/null || echo none) $path"
    done <"$before/paths" >"$before/written"
}

# aside FILE: it is kept, and no longer there.
aside() { keep "$1" && rm -f "$R$1"; }

# put FILE MODE: what stands on the input becomes its content. In place, so that owner and labels stay.
put() {
    # RHEL's grubenv is a link.
    if [ -z "$R" ] && [ -f "$1" ] && [ -L "$1" ]; then set -- "$(readlink -f "$1")" "$2"; fi
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

# line_of_fstab DEVICE POINT PROGRAM: on the line with these, as they are written there.
line_of_fstab() {
    edit /etc/fstab env FROM="$1" POINT="$2" TO="${4:-}" awk \
        "\$1 == ENVIRON[\"FROM\"] && \$2 == ENVIRON[\"POINT\"] { $3 } { print }"
}

# fstab_uuid DEVICE POINT UUID
fstab_uuid() {
    if line_of_fstab "$1" "$2" 'sub(/[^ \t]+/, ENVIRON["TO"])' "UUID=$3"; then
        mended fstab-device-name "/etc/fstab: $2 by UUID=$3, before by $1"
    else
        left fstab-device-name "/etc/fstab: the line of $1 was not found"
    fi
}

# fstab_nofail DEVICE POINT sought|unknown: whether it is known that there is no such volume.
fstab_nofail() {
    if ! line_of_fstab "$1" "$2" '$4 = ($4 == "" ? "defaults" : $4) ",nofail,x-systemd.device-timeout=10s"'; then
        left fstab-missing-device "/etc/fstab: the line of $1 was not found"
    elif [ "$3" = sought ]; then
        mended fstab-missing-device "/etc/fstab: boot no longer waits for $1 ($2), which is not there"
    else
        left fstab-device-name "/etc/fstab: nobody can tell from outside which volume $1 is. Boot does not wait for it; if $2 is not mounted, mount it by UUID before anything writes there"
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

# kernel_words WORDS: in how many files that start a kernel.
kernel_words() {
    count=0
    for file in $(loader_files); do
        case $file in
        etc/default/grub)
            edit "/$file" sed "s/^\(GRUB_CMDLINE_LINUX=[\"']\)/\1$1 /" || : ;;
        etc/kernel/cmdline)
            edit "/$file" sed "1s/\$/ $1/" || : ;;
        *.conf)
            edit "/$file" sed "s/^\([[:space:]]*\(options\|append\|APPEND\)[[:space:]].*\)\$/\1 $1/" && count=$((count + 1)) ;;
        *)
            edit "/$file" sed "s/^\([[:space:]]*\(linux\|linux16\|linuxefi\|kernel\|append\|APPEND\)[[:space:]].*\)\$/\1 $1/" &&
                count=$((count + 1)) ;;
        esac
    done
    [ "$count" -gt 0 ]
}

serial_console() {
    if kernel_words 'console=tty0 console=ttyS0,115200n8'; then
        mended console-missing "the boot loader: the kernel speaks on the serial port"
    else
        left console-missing "no boot loader's file starts a kernel"
    fi
}

# eth0: for what configures cards by their name. What systemd calls them differs from one instance type to the next.
old_names() {
    if kernel_words 'net.ifnames=0 biosdevname=0'; then
        mended network "the boot loader: the first card is called eth0"
    else
        left network "no boot loader's file starts a kernel, so what the first card is called depends on the instance type"
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
    printf 'source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\n' |
        put /etc/network/interfaces 644 && mended network "/etc/network/interfaces: eth0 asks by DHCP" && old_names
}

# By networkd: NetworkManager under netplan knows no patterns.
netplan_dhcp() {
    printf 'network:\n  version: 2\n  ethernets:\n    all:\n      renderer: networkd\n      match: {name: "e*"}\n      dhcp4: true\n      dhcp6: true\n' |
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

# The newest first: it is the one that starts, and /boot may be too small for all.
kernels() {
    for folder in "$R"/lib/modules/*/; do
        version=$(basename "$folder")
        if [ -e "$R/boot/vmlinuz-$version" ] || [ -e "$folder/vmlinuz" ]; then echo "$version"; fi
    done | sort -rV
}

# each_kernel COMMAND…: fails where it fails for the newest; older ones keep what they have.
each_kernel() {
    if grep -Eqs '^[^#]*[[:space:]]/boot[[:space:]]' "$R/etc/fstab" && [ -z "$R" ] && ! mountpoint -q /boot; then
        echo "/boot is not mounted" >&2
        return 1
    fi
    newest=
    for version in $(kernels); do
        if ! "$@" "$version" >&2 && [ -z "$newest" ]; then return 1; fi
        newest=$version
    done
    [ -n "$newest" ]
}

# with_dracut DRIVERS: for any machine, since the one that dracut sees is not the one that will start.
with_dracut() {
    printf 'add_drivers+=" %s "\nhostonly="no"\n' "$1" | put /etc/dracut.conf.d/90-sparesite.conf 644 || return 1
    each_kernel one_by_dracut
}

# Into another place first: what does not fit must not stand there cut off.
one_by_dracut() {
    for image in "$R/boot/initramfs-$1.img" "$R/boot/initrd-$1" "$R/boot/$(cat "$R/etc/machine-id" 2>/dev/null)/$1/initrd"; do
        [ -f "$image" ] || continue
        rm -f "$before/image"
        dracut --force --no-hostonly "$before/image" "$1" || return 1
        new=$(wc -c <"$before/image") old=$(wc -c <"$image")
        free=$(df -P -k "$(dirname "$image")" | awk 'NR == 2 { print $4 }')
        if [ $(((new - old) / 1024 + 1024)) -gt "$free" ]; then
            rm -f "$before/image"
            return 1
        fi
        cat "$before/image" >"$image"
        set -- "$1" "$?"
        rm -f "$before/image"
        return "$2"
    done
    dracut --force --no-hostonly --kver "$1"
}

# with_initramfs_tools DRIVERS
with_initramfs_tools() {
    # MODULES=dep would take the drivers of the machine that this runs on.
    echo MODULES=most | put /etc/initramfs-tools/conf.d/sparesite 644 || return 1
    {
        cat "$R/etc/initramfs-tools/modules" 2>/dev/null
        echo "$1" | tr ' ' '\n'
    } >"$before/modules"
    put /etc/initramfs-tools/modules 644 <"$before/modules" || return 1
    rm -f "$before/modules"
    each_kernel one_by_initramfs_tools
}

one_by_initramfs_tools() {
    how=-u
    [ -s "$R/boot/initrd.img-$1" ] || how=-c
    update-initramfs "$how" -k "$1"
}

# initramfs DRIVERS: by the family's own tool.
initramfs() {
    if make_initramfs "$1"; then
        mended initramfs "the initial file systems are made anew, with $1"
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
        # FAT has no labels.
        while read -r path; do
            case $path in /boot/efi/* | /efi/*) continue ;; esac
            [ ! -e "$R$path" ] || setfiles -F "$R$contexts" "$R$path"
        done <"$before/paths" >&2
        setfiles -F -e "$R/boot/efi" -e "$R/efi" "$R$contexts" "$R/boot" "$R/var/lib/sparesite" >&2 && return 0
    fi
    touch "$R/.autorelabel"
    mended selinux "all files get their SELinux labels anew at the first start, which then starts once more"
}
