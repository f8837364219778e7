# shellcheck shell=sh disable=SC2016 # awk reads what is quoted
# SLES, openSUSE.
make_initramfs() { with_dracut "$1"; }

# For wicked(8).
ifcfg_dhcp() {
    printf "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n" | put /etc/sysconfig/network/ifcfg-eth0 644 &&
        mended network "ifcfg-eth0 asks by DHCP" && old_names
}
