//! Reading the job log from its end.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Job, MOST_BYTES, current, previous};

/// The newest records that are wanted, newest first, at most so many.
pub fn newest(state: &Path, most: usize, wanted: impl Fn(&Job) -> bool) -> io::Result<Vec<Job>> {
    let mut found = Vec::new();
    for path in [current(state), previous(state)] {
        let Some(content) = read(&path)? else {
            continue;
        };
        let lines = content.split(|byte| *byte == b'\n').rev();
        // What is not ours, or torn, is passed over.
        let jobs = lines.filter_map(|line| serde_json::from_slice(line).ok());
        found.extend(jobs.filter(&wanted).take(most - found.len()));
    }
    Ok(found)
}

/// Never longer than we let it become, whatever was put there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut content = Vec::new();
    file.take(2 * MOST_BYTES).read_to_end(&mut content)?;
    Ok(Some(content))
}
