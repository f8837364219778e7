# shellcheck shell=sh disable=SC2016 # awk reads what is quoted
# RHEL, Rocky, Alma, Oracle, Fedora, Amazon Linux.
make_initramfs() { with_dracut "$1"; }

# For initscripts, and NetworkManager's ifcfg-rh.
ifcfg_dhcp() {
    printf 'DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\nTYPE=Ethernet\n' |
        put /etc/sysconfig/network-scripts/ifcfg-eth0 644 && mended network "ifcfg-eth0 asks by DHCP" && old_names
}
