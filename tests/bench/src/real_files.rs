//! The real part of the disk: files of this machine's own /usr, the same ones
//! each time as long as /usr is the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::seed::derive;

/// One file alone must not be a large part of the disk.
const LARGEST: u64 = 128 << 20;

struct Candidate {
    order: u64,
    path: PathBuf,
    bytes: u64,
}

/// Copies regular files from `source` into `target`, in an order drawn from
/// `seed` (so that all of the tree is represented), until about `bytes`.
/// Returns how many bytes it copied: fewer only if the tree holds fewer.
pub fn copy_real_files(seed: u64, source: &Path, target: &Path, bytes: u64) -> anyhow::Result<u64> {
    let mut candidates = Vec::new();
    let mut folders = vec![source.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(metadata) = entry.metadata()
                && (1..=LARGEST).contains(&metadata.len())
            {
                let path = entry.path();
                let order = derive(seed, &path.to_string_lossy(), 0);
                candidates.push(Candidate {
                    order,
                    path,
                    bytes: metadata.len(),
                });
            }
        }
    }
    candidates.sort_by(|a, b| (a.order, &a.path).cmp(&(b.order, &b.path)));
    let mut copied = 0;
    for candidate in candidates {
        if copied + candidate.bytes > bytes {
            continue;
        }
        let inside = candidate.path.strip_prefix(source)?;
        let to = target.join(inside);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        // Unreadable or gone meanwhile: another one takes its place.
        if fs::copy(&candidate.path, &to).is_ok() {
            copied += candidate.bytes;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_same_files_up_to_the_size() {
        let source = tempfile::tempdir().unwrap();
        for number in 0..20 {
            let folder = source.path().join(format!("d{}", number % 3));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("f{number}")), vec![1; 100]).unwrap();
        }
        let copies: Vec<Vec<PathBuf>> = (0..2)
            .map(|_| {
                let target = tempfile::tempdir().unwrap();
                let copied = copy_real_files(5, source.path(), target.path(), 1050).unwrap();
                assert_eq!(copied, 1000);
                let mut names: Vec<_> = (0..3)
                    .flat_map(|d| fs::read_dir(target.path().join(format!("d{d}"))))
                    .flatten()
                    .map(|entry| PathBuf::from(entry.unwrap().file_name()))
                    .collect();
                names.sort();
                names
            })
            .collect();
        assert_eq!(copies[0].len(), 10);
        assert_eq!(copies[0], copies[1]);
    }
}
