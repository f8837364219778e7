# shellcheck shell=sh disable=SC2016 # awk reads what is quoted
# RHEL, Rocky, Alma, Oracle, Fedora, Amazon Linux.
make_initramfs() { with_dracut "$1"; }

# ens5 on Nitro, eth0 with net.ifnames=0 (initscripts, and NetworkManager's ifcfg-rh).
ifcfg_dhcp() {
    for name in ens5 eth0; do
        printf 'DEVICE=%s\nBOOTPROTO=dhcp\nONBOOT=yes\nTYPE=Ethernet\n' "$name" |
            put "/etc/sysconfig/network-scripts/ifcfg-$name" 644 || return
    done
    mended network "ifcfg-ens5, ifcfg-eth0: the first card asks by DHCP"
}
