//! Alerts: what an operator is told without asking. Each is told once when it begins and once when
//! it is over, also across restarts; what could not be told is told later.

mod decide;
mod runner;
mod told;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use decide::{VmHealth, standing};
pub use runner::tell;
pub use told::{Change, Told};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// The newest published point is older than the RPO target.
    RpoMissed,
    /// No point was ever published.
    NeverSynced,
    /// The same job failed several times in a row.
    JobFailing,
    /// It was failed over. Of such a VM no other alert stands but those that follow.
    Fenced,
    /// What is to end its work here after that did not.
    OnFencedFailed,
    /// What its disks held then is in the vault.
    DivergedKept,
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            AlertKind::RpoMissed => "rpo-missed",
            AlertKind::NeverSynced => "never-synced",
            AlertKind::JobFailing => "job-failing",
            AlertKind::Fenced => "fenced",
            AlertKind::OnFencedFailed => "on-fenced-failed",
            AlertKind::DivergedKept => "diverged-kept",
        })
    }
}

/// What an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub vm: String,
    pub alert: AlertKind,
    /// The control log's entry of its fence: the next fence is told anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}
