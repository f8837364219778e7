//! A recovery kit that was never carried away burns with the site, and opens everything to whoever
//! takes the machine and guesses its passphrase.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use console::Finding;
use vault_format::kit::Kit;

use super::Checks;

const WHAT: &str = "recovery kit";
/// A kit has some KiB, its page some hundred.
const MOST_BYTES: u64 = 1 << 20;
/// Folders of a site's configuration have tens of files.
const MOST_FILES: usize = 1000;
/// In a kit's file and in its printed page, there escaped.
const MARKS: [&str; 2] = [
    "\"sparesite recovery kit\"",
    "&quot;sparesite recovery kit&quot;",
];

pub fn check(folders: &[impl AsRef<Path>], checks: &mut Checks) {
    let folders = || folders.iter().map(AsRef::as_ref);
    let shown: Vec<_> = folders().map(|f| f.display().to_string()).collect();
    let kits: Vec<_> = folders().flat_map(kits_in).collect();
    if kits.is_empty() {
        checks.ok(WHAT, shown.join(", "), "none lies there");
    }
    for kit in kits {
        let finding = Finding::new(
            "a recovery kit lies on this machine",
            kit.display().to_string(),
            "what takes the site takes the kit, and it must not be found beside the gateway",
            "copy it away from the site, try the copy with `sparesite-restore points`, then delete it here",
        );
        checks.found(WHAT, finding);
    }
}

fn kits_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path());
    let mut kits: Vec<_> = files.take(MOST_FILES).filter(|file| is_kit(file)).collect();
    kits.sort();
    kits
}

fn is_kit(file: &Path) -> bool {
    let small = fs::metadata(file).is_ok_and(|about| about.len() <= MOST_BYTES);
    let mut bytes = Vec::new();
    let read = small
        && File::open(file)
            .and_then(|open| open.take(MOST_BYTES).read_to_end(&mut bytes))
            .is_ok();
    if !read {
        return false;
    }
    let text = String::from_utf8_lossy(&bytes);
    MARKS.iter().any(|mark| text.contains(mark)) || Kit::parse(&bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kits_and_their_pages_are_found_by_what_they_hold() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("written");
        };
        write("a.txt", "{\"kind\": \"sparesite recovery kit\", …");
        write(
            "b.html",
            "{&quot;kind&quot;:&quot;sparesite recovery kit&quot;…",
        );
        write("gateway.key", "{\"kind\": \"sparesite gateway key\"}");
        write("notes", "our sparesite recovery kit is in the safe");
        fs::create_dir(folder.path().join("folder")).expect("made");
        let names: Vec<_> = kits_in(folder.path())
            .iter()
            .map(|kit| kit.file_name().expect("a name").to_owned())
            .collect();
        assert_eq!(names, ["a.txt", "b.html"]);
        assert!(kits_in(Path::new("/nonexistent")).is_empty());
    }
}
