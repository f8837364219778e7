//! What both programs print and how they read what people write: arguments, logs, progress,
//! tables, findings, errors and exit codes, sizes and times; and the private files that they make for
//! people. Knows no vault and no disk.
//!
//! Everything for stdout goes through [`print`], [`print_json`] and [`table::Table`]; everything
//! for stderr through the logs, [`Progress`] and [`run`]. Those two paths share the terminal with
//! the progress bar, and survive a reader or a terminal that went away.

mod failure;
mod finding;
mod hangup;
mod manual;
mod output;
mod passphrase;
mod private_file;
mod progress;
mod run;
mod screen;
pub mod show;
mod stdio;
pub mod table;
pub mod units;

pub use failure::{Exit, Failure, OrFailure};
pub use finding::{Finding, print_findings};
pub use hangup::hangup_counts;
pub use manual::Manual;
pub use output::{LogFormat, OutputArgs, init_logging};
pub use passphrase::{read_new_passphrase, read_passphrase};
pub use private_file::PrivateFile;
pub use progress::{Progress, tell};
pub use run::run;
pub use stdio::{print, print_json};
