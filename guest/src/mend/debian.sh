# shellcheck shell=sh disable=SC2016 # awk reads what is quoted
# Debian, Ubuntu and what is made of them.
make_initramfs() {
    if command -v update-initramfs >/dev/null; then with_initramfs_tools "$1"; else with_dracut "$1"; fi
}
ifcfg_dhcp() { left network "ifcfg files are not Debian's"; }
