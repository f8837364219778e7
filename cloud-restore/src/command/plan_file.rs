//! Files that commands on recovery plans read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use console::{Failure, OrFailure};
use recovery_plan::prices::Prices;

/// No plan of a small site comes near; what is larger is some other file.
const MOST_BYTES: u64 = 4 << 20;

pub fn text(path: &Path) -> Result<String, Failure> {
    let failed = || Failure::usage(format!("cannot read {}", path.display()));
    let file = File::open(path).or_failure(failed)?;
    let mut text = String::new();
    file.take(MOST_BYTES + 1)
        .read_to_string(&mut text)
        .or_failure(failed)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(failed().because("it is larger than 4 MiB: is it the right file?")),
        false => Ok(text),
    }
}

/// The owner's, else those that come with the program.
pub fn prices(path: Option<&Path>) -> Result<Prices, Failure> {
    let Some(path) = path else {
        return Ok(Prices::aws());
    };
    Prices::parse(&text(path)?).map_err(|why| {
        Failure::usage(format!("{} is no table of prices", path.display()))
            .because(why)
            .remedy("`plan prices` prints the one that comes with the program: change a copy of it")
    })
}
