//! Files that must not exist before and must be whole after: the key, the kit, its page.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use console::{Failure, OrFailure};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

/// A file to make, for its owner alone.
pub struct NewFile<'f> {
    pub path: &'f Path,
    pub bytes: &'f [u8],
}

/// Files made so far, so that they can go again.
#[derive(Debug, Default)]
pub struct Written(Vec<PathBuf>);

/// Refuses paths that exist, that are the same, or whose folder is missing, before anything is
/// made.
pub fn check_new(paths: &[&Path]) -> Result<(), Failure> {
    for (place, path) in paths.iter().enumerate() {
        let shown = path.display();
        let refuse = |why: &str, remedy: String| {
            Err(Failure::usage(format!("{shown} {why}")).remedy(remedy))
        };
        if path.file_name().is_none() {
            return refuse(
                "names no file",
                "give a path that ends in a file's name".into(),
            );
        }
        if paths[..place].contains(path) {
            return refuse("is named twice", "give each file its own path".into());
        }
        // A link that leads nowhere is there as well.
        if fs::symlink_metadata(path).is_ok() {
            let remedy = "nothing was changed; give another path, or move that file away";
            return refuse("exists already", remedy.into());
        }
        let folder = folder_of(path);
        if !folder.is_dir() {
            let remedy = format!("make the folder first: mkdir -p {}", folder.display());
            return refuse("has no folder to lie in", remedy);
        }
    }
    Ok(())
}

impl Written {
    /// Writes under a temporary name, fsyncs, and gives it its name if that is still free.
    pub fn write(&mut self, file: &NewFile) -> Result<(), Failure> {
        let shown = file.path.display();
        write_new(file).or_failure(|| {
            Failure::failed(format!("cannot write {shown}"))
                .remedy("check the folder's rights and its free space, and run the command again")
        })?;
        self.0.push(file.path.to_owned());
        Ok(())
    }

    /// Removes what was written, and adds to `failure` that nothing is left of it.
    pub fn take_back(self, failure: Failure) -> Failure {
        let mut left = Vec::new();
        for path in &self.0 {
            if let Err(error) = fs::remove_file(path) {
                left.push(format!("{} ({error})", path.display()));
            }
        }
        let gone = match (self.0.is_empty(), left.is_empty()) {
            (true, _) => "no file was written".to_owned(),
            (_, true) => "the key and kit files were removed again".to_owned(),
            _ => format!("remove these files, they open nothing: {}", left.join(", ")),
        };
        Failure::failed(format!("{failure}; {gone}")).because(failure)
    }
}

fn write_new(file: &NewFile) -> io::Result<()> {
    let folder = folder_of(file.path);
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let part = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = (|| {
        let options = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .to_owned();
        let mut open = options.open(&part)?;
        open.write_all(file.bytes)?;
        open.sync_all()?;
        rename_to_new(&part, file.path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn rename_to_new(part: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
        // File systems that cannot (FAT on a USB stick before Linux 5.x, NFS): a small race is left.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(path) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(part, path),
        },
        other => Ok(other?),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_new_file_is_its_owners_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.key");
        let file = NewFile {
            path: &path,
            bytes: b"secret",
        };
        let mut written = Written::default();
        written.write(&file).expect("written");
        let about = fs::metadata(&path).expect("there");
        assert_eq!((about.mode() & 0o777, about.len()), (0o600, 6));
        let second = NewFile {
            path: &path,
            bytes: b"other",
        };
        let failure = written.write(&second).expect_err("refused");
        assert!(failure.to_string().starts_with("cannot write"));
        assert_eq!(fs::read(&path).expect("read"), b"secret");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn what_was_written_goes_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kit");
        let mut written = Written::default();
        let file = NewFile {
            path: &path,
            bytes: b"kit",
        };
        written.write(&file).expect("written");
        let failure = written.take_back(Failure::failed("no vault"));
        let expected = "no vault; the key and kit files were removed again";
        assert_eq!(failure.to_string(), expected);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_there_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("there"), b"").expect("written");
        symlink("/nonexistent", at("link")).expect("linked");
        let (a, b) = (at("a"), at("b"));
        check_new(&[&a, &b]).expect("free");
        for (paths, why) in [
            (vec![a.clone(), at("there")], "exists already"),
            (vec![at("link")], "exists already"),
            (vec![a.clone(), a], "is named twice"),
            (vec![at("missing/x")], "has no folder to lie in"),
            (vec![PathBuf::from("/")], "names no file"),
        ] {
            let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
            let refused = check_new(&paths).expect_err("refused").to_string();
            assert!(refused.ends_with(why), "{refused}");
        }
    }
}
