//! Where the programs are that the journeys try.

use std::path::{Path, PathBuf};

/// The folder with both programs: SPARESITE_BIN, or the target folder of this very test.
pub fn program_folder() -> PathBuf {
    if let Some(set) = std::env::var_os("SPARESITE_BIN").filter(|value| !value.is_empty()) {
        return PathBuf::from(set);
    }
    let test = std::env::current_exe().expect("the test knows its own path");
    // target/debug/deps/local-0123
    let folder = test.ancestors().nth(2);
    folder.expect("a target folder").to_owned()
}

/// `sparesite-gateway` or `sparesite-restore`.
pub fn program(name: &str) -> PathBuf {
    let path = program_folder().join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --bins` first, or set SPARESITE_BIN to the folder that \
         holds it",
        path.display()
    );
    path
}

/// Whether a program that others wrote is installed; if not, that is said, and is an error where everything must be there.
pub fn has(program: &str) -> bool {
    let there = Path::new("/usr/bin").join(program).exists();
    if !there {
        testkit::skip(program);
    }
    there
}
