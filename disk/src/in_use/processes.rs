//! Processes that have a disk open for writing.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{major, minor};

use super::{Target, entries, read_line};

/// The pid namespace that sees every process of the host; a constant of the kernel's ABI.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// QEMU holds a lock on byte 100 + n of an image for each permission n that it uses; 1 is "write".
const QEMU_WRITE_BYTE: u64 = 101;

/// A running QEMU announces itself by locks, which anybody may see.
pub(super) fn qemu_lock(target: &Target) -> io::Result<Option<String>> {
    let Some((device, inode)) = target.file else {
        return Ok(None);
    };
    let id = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks")?;
    Ok(locks
        .lines()
        .any(|line| covers(line, &id, QEMU_WRITE_BYTE))
        .then(|| "a QEMU process has locked it for writing".to_owned()))
}

/// Whether a line of /proc/locks is a lock held on that byte:
/// `1: OFDLCK ADVISORY  READ -1 fe:00:1234 101 101`. Waiting ones have `->` in between.
fn covers(line: &str, file: &str, byte: u64) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, kind, _, _, _, id, start, end] = words[..] else {
        return false;
    };
    let end = if end == "EOF" {
        Ok(u64::MAX)
    } else {
        end.parse()
    };
    let (Ok(start), Ok(end)) = (start.parse::<u64>(), end) else {
        return false;
    };
    kind == "OFDLCK" && id == file && (start..=end).contains(&byte)
}

/// Looks through every process's open files and shared mappings. What could not be
/// looked at is a doubt.
pub(super) fn writer(
    proc: &Path,
    target: &Target,
    doubts: &mut Vec<String>,
) -> io::Result<Option<String>> {
    let namespace = fs::read_link(proc.join("self/ns/pid"))?;
    if namespace.as_os_str() != INITIAL_PID_NAMESPACE {
        doubts.push("this program runs in a container and does not see all processes".into());
    }
    for process in entries(proc) {
        let is_process = process
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        match has_open(&process, target) {
            Ok(false) => {}
            Ok(true) => return Ok(Some(describe(&process))),
            // It ended while we looked.
            Err(e) if is_gone(&e) => {}
            Err(e) => {
                if doubts.is_empty() {
                    doubts.push(format!(
                        "the open files of {} cannot be seen ({e}); run as root",
                        describe(&process)
                    ));
                }
            }
        }
    }
    Ok(None)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn describe(process: &Path) -> String {
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    let name = read_line(&process.join("comm")).unwrap_or_default();
    format!("process {pid} ({name})")
}

fn has_open(process: &Path, target: &Target) -> io::Result<bool> {
    for entry in fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        // Follows the link to the open file itself, whatever its name is now.
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        if !target.is(&metadata) {
            continue;
        }
        let info = process.join("fdinfo").join(entry.file_name());
        match fs::read_to_string(info) {
            // Not parsed: taken for a writer.
            Ok(info) if may_write(&info).unwrap_or(true) => return Ok(true),
            Ok(_) => {}
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    let maps = fs::read(process.join("maps"))?;
    let maps = String::from_utf8_lossy(&maps);
    Ok(maps.lines().any(|line| maps_for_writing(line, target)))
}

/// `flags: 0100002` of /proc/PID/fdinfo: octal; the two low bits are 0 for reading only.
fn may_write(info: &str) -> Option<bool> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some(flags & 3 != 0)
}

/// A line of /proc/PID/maps: `start-end rw-s offset major:minor inode path`. A
/// mapping outlives the descriptor that made it.
fn maps_for_writing(line: &str, target: &Target) -> bool {
    let Some((device, inode)) = target.file else {
        return false;
    };
    let mut words = line.split_ascii_whitespace().skip(1);
    let (Some(mode), Some(_), Some(id), Some(found)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    mode.contains('w')
        && mode.ends_with('s')
        && id == format!("{:02x}:{:02x}", major(device), minor(device))
        && found.parse() == Ok(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_on_the_byte_counts() {
        let held = "1: OFDLCK ADVISORY  READ  -1 fe:00:1234 100 103";
        assert!(covers(held, "fe:00:1234", 101));
        assert!(!covers(held, "fe:00:1234", 104));
        assert!(!covers(held, "fe:01:1234", 101));
        assert!(covers(
            "7: OFDLCK ADVISORY  WRITE -1 fe:00:1234 0 EOF",
            "fe:00:1234",
            101
        ));
        for other in [
            "1: -> OFDLCK ADVISORY  READ  -1 fe:00:1234 101 101",
            "1: POSIX  ADVISORY  WRITE 12 fe:00:1234 101 101",
            "",
            "1: OFDLCK ADVISORY READ -1 fe:00:1234 x 101",
        ] {
            assert!(!covers(other, "fe:00:1234", 101), "{other}");
        }
    }

    #[test]
    fn the_access_mode_decides() {
        assert_eq!(
            may_write("pos:\t0\nflags:\t0100000\nmnt_id:\t1\n"),
            Some(false)
        );
        assert_eq!(may_write("pos:\t0\nflags:\t02100002\n"), Some(true));
        assert_eq!(may_write("flags:\t01\n"), Some(true));
        assert_eq!(may_write("pos:\t0\n"), None);
    }

    #[test]
    fn only_shared_writable_mappings_count() {
        let target = Target {
            file: Some((rustix::fs::makedev(0xfe, 1), 77)),
            ..Target::default()
        };
        let line = |mode: &str, id: &str| format!("7f00-7f01 {mode} 00000000 {id} 77    /x y");
        assert!(maps_for_writing(&line("rw-s", "fe:01"), &target));
        assert!(!maps_for_writing(&line("rw-p", "fe:01"), &target));
        assert!(!maps_for_writing(&line("r--s", "fe:01"), &target));
        assert!(!maps_for_writing(&line("rw-s", "fe:02"), &target));
    }
    /// A /proc of one process that has `file` open with these flags.
    fn proc_with(file: &Path, flags: &str, namespace: &str) -> tempfile::TempDir {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["self/ns", "12/fd", "12/fdinfo", "not-a-process"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(namespace, at("self/ns/pid")).unwrap();
        symlink(file, at("12/fd/3")).unwrap();
        fs::write(at("12/fdinfo/3"), format!("pos:\t0\nflags:\t{flags}\n")).unwrap();
        fs::write(at("12/maps"), "").unwrap();
        fs::write(at("12/comm"), "vmx\n").unwrap();
        dir
    }

    #[test]
    fn only_a_complete_look_without_a_writer_is_without_doubt() {
        use std::os::unix::fs::MetadataExt;
        let image = tempfile::NamedTempFile::new().unwrap();
        let metadata = image.as_file().metadata().unwrap();
        let target = Target {
            file: Some((metadata.dev(), metadata.ino())),
            ..Target::default()
        };
        let look = |proc: &Path| {
            let mut doubts = Vec::new();
            let found = writer(proc, &target, &mut doubts).unwrap();
            (found, doubts.len())
        };
        let initial = INITIAL_PID_NAMESPACE;
        let reader = proc_with(image.path(), "0100000", initial);
        assert_eq!(look(reader.path()), (None, 0));
        let writer = proc_with(image.path(), "0100002", initial);
        assert_eq!(look(writer.path()), (Some("process 12 (vmx)".into()), 0));
        let container = proc_with(image.path(), "0100000", "pid:[4026532000]");
        assert_eq!(look(container.path()), (None, 1));
        // Its open files cannot be listed.
        fs::remove_dir_all(reader.path().join("12/fd")).unwrap();
        fs::write(reader.path().join("12/fd"), "").unwrap();
        assert_eq!(look(reader.path()), (None, 1));
    }
}
