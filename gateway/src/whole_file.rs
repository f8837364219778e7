//! Small files of the state folder: written whole or not at all, read within a bound.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

/// Replaces `path`; who reads it meanwhile sees the old or the new one, and so after a power failure.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, |file| file.sync_data())
}

/// For what nobody reads any more after a power failure.
pub fn write_for_now(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, |_| Ok(()))
}

fn replace(path: &Path, bytes: &[u8], settle: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let written = File::create(part).and_then(|mut file| {
        file.write_all(bytes)?;
        settle(&file)
    });
    let replaced = written.and_then(|()| fs::rename(part, path));
    if replaced.is_err() {
        let _ = fs::remove_file(part);
    }
    replaced
}

/// `None`: it is not there, cannot be read, or is larger than it can be.
pub fn read(path: &Path, most_bytes: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(most_bytes + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most_bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        assert_eq!(read(&path, 10), None);
        for content in ["one", "another", "3"] {
            write(&path, content.as_bytes()).expect("written");
            assert_eq!(read(&path, 7).as_deref(), Some(content.as_bytes()));
        }
        write(&path, b"too long").expect("written");
        assert_eq!(read(&path, 7), None);
        let files = fs::read_dir(folder.path()).expect("read");
        assert_eq!(files.count(), 1, "no leftovers");
        assert!(write(&folder.path().join("none/a"), b"x").is_err());
    }
}
