//! Paths of the configuration: made absolute, and compared as what they really name.

use std::path::{Component, Path, PathBuf};

/// `path` from `folder`, without `.` and `..`. Lexical: what the file says, not where links lead.
pub(super) fn absolute(path: &str, folder: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            // The root's parent is the root.
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Where `path` leads once links are followed, as far as it exists: two names of one disk
/// (`/dev/vg0/root`, `/dev/mapper/vg0-root`) come out the same.
pub(crate) fn real(path: &Path) -> PathBuf {
    for existing in path.ancestors() {
        if let Ok(found) = existing.canonicalize() {
            return match path.strip_prefix(existing) {
                Ok(rest) if rest.as_os_str().is_empty() => found,
                Ok(rest) => found.join(rest),
                Err(_) => path.to_owned(),
            };
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        for (written, meant) in [
            ("gateway.key", "/etc/sparesite/gateway.key"),
            ("./a/../b", "/etc/sparesite/b"),
            ("../../../../x", "/x"),
            ("/srv//a/", "/srv/a"),
        ] {
            assert_eq!(
                absolute(written, Path::new("/etc/sparesite")),
                Path::new(meant)
            );
        }
    }

    #[test]
    fn links_are_followed_as_far_as_the_path_exists() {
        let name = format!("place-{}", std::process::id());
        let folder = std::env::temp_dir()
            .canonicalize()
            .expect("a folder")
            .join(name);
        std::fs::create_dir_all(folder.join("a")).expect("made");
        symlink(folder.join("a"), folder.join("b")).expect("linked");
        assert_eq!(real(&folder.join("b/vault/x")), folder.join("a/vault/x"));
        assert_eq!(real(&folder.join("b")), folder.join("a"));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
