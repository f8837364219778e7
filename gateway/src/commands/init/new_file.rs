//! Files that must not exist before and must be whole after: the key, the kit, its page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use console::{Failure, PrivateFile};

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
    /// Writes a new file for its owner alone.
    pub fn write(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        PrivateFile::prepare(path)?.publish(text.as_bytes())?;
        self.0.push(path.to_owned());
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

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_written_goes_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kit");
        let mut written = Written::default();
        written.write(&path, "kit").expect("written");
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
