# shellcheck shell=sh disable=SC2016 # awk reads what is quoted
# SLES, openSUSE.
make_initramfs() { with_dracut "$1"; }

# wicked(8): a card that is not there is passed over.
ifcfg_dhcp() {
    for name in eth0 ens5; do
        printf "BOOTPROTO='dhcp'\nSTARTMODE='hotplug'\n" | put "/etc/sysconfig/network/ifcfg-$name" 644 || return
    done
    mended network "ifcfg-eth0, ifcfg-ens5: the first card asks by DHCP"
}
