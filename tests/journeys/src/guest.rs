//! A disk with the files of a Linux guest: enough of it to be judged, and nothing that runs.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{MIB, Run};

const ROOT_UUID: &str = "5a7e517e-0000-4000-8000-00000000d15c";
const TOOLS: [(&str, &str); 2] = [("mke2fs", "e2fsprogs"), ("sfdisk", "fdisk")];

/// A raw disk of 32 MiB: an MBR, and an ext4 root with a kernel that is sought by its UUID. `false`, and said, where the
/// tools that make it are missing.
pub fn make_guest(disk: &Path, fstab: &str) -> bool {
    for (program, package) in TOOLS {
        let there = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(program).exists());
        if there == [false; 2] {
            testkit::skip(package);
            return false;
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (tree, root) = (folder.path().join("tree"), folder.path().join("root"));
    let menu = format!(
        "set root='hd0,msdos1'\nmenuentry 'Debian' {{\n\
         \tlinux /boot/vmlinuz-6.12.0 root=UUID={ROOT_UUID} ro console=ttyS0\n\
         \tinitrd /boot/initrd.img-6.12.0\n}}\n"
    );
    let release = "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n";
    for (path, text) in [
        ("etc/os-release", release),
        ("etc/fstab", fstab),
        ("etc/hostname", "web\n"),
        ("boot/grub/grub.cfg", &menu),
        ("boot/vmlinuz-6.12.0", "no kernel"),
        ("boot/initrd.img-6.12.0", "no initramfs"),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    sized(&root, 30 * MIB);
    let mut make = tool("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-U", ROOT_UUID, "-d"]);
    Run::of(make.arg(&tree).arg(&root)).ok();
    sized(disk, 32 * MIB);
    divide(disk);
    let mut open = File::options().write(true).open(disk).expect("opens");
    // As GRUB's first sector looks from outside.
    open.write_all(b"\xeb\x63\x90 GRUB ").expect("written");
    open.seek(SeekFrom::Start(MIB)).expect("sought");
    io::copy(&mut File::open(&root).expect("opens"), &mut open).expect("copied");
    true
}

fn sized(path: &Path, bytes: u64) {
    let file = File::create(path).expect("made");
    file.set_len(bytes).expect("sized");
}

/// One active partition from 1 MiB on.
fn divide(disk: &Path) {
    let mut child = tool("sfdisk")
        .args(["-q", "--no-reread"])
        .arg(disk)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk starts");
    let table = b"label: dos\nstart=2048, size=61440, type=83, bootable\n";
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(table).expect("written");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

/// Debian keeps these out of an ordinary user's path.
fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
