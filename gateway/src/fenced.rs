//! A VM that was failed over, as every place that speaks of it tells it.

use console::{Finding, show};
use serde::{Deserialize, Serialize};
use vault_store::gateway::{Kept, OnFenced, VmFence};

/// Part of a VM's object in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// The control log's entry: another one is another fencing.
    pub entry: u64,
    /// The run that failed it over; unknown of a fence by an older version.
    pub run: Option<String>,
    /// RFC 3339, the clock of who failed it over.
    pub at: String,
    pub on_fenced: Hook,
    /// Why it failed.
    pub on_fenced_failure: Option<String>,
    /// The number of the point that keeps what its disks held.
    pub diverged_point: Option<u64>,
    /// That point waits to be sent.
    pub diverged_waits: bool,
}

/// What came of `on_fenced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    NotYet,
    NotConfigured,
    Ran,
    Failed,
}

impl From<VmFence> for Fenced {
    fn from(fence: VmFence) -> Self {
        let (on_fenced, on_fenced_failure) = match fence.on_fenced {
            None => (Hook::NotYet, None),
            Some(OnFenced::Nothing) => (Hook::NotConfigured, None),
            Some(OnFenced::Done) => (Hook::Ran, None),
            Some(OnFenced::Failed(why)) => (Hook::Failed, Some(why)),
        };
        Fenced {
            entry: fence.number,
            run: fence.run,
            at: fence.time,
            on_fenced,
            on_fenced_failure,
            diverged_point: match fence.kept {
                Kept::Point(point) => Some(point.sequence),
                Kept::No | Kept::Waits => None,
            },
            diverged_waits: fence.kept == Kept::Waits,
        }
    }
}

impl Fenced {
    /// All there is to say, in one line.
    pub fn words(&self, vm: &str) -> String {
        let run = match &self.run {
            Some(run) => format!("by run {run} "),
            None => String::new(),
        };
        let at = match self.at.parse() {
            Ok(at) => show::time_local(at),
            Err(_) => self.at.clone(),
        };
        let hook = match self.on_fenced {
            Hook::NotYet => "on_fenced has not run yet".to_owned(),
            Hook::NotConfigured => "no on_fenced is configured".to_owned(),
            Hook::Ran => "on_fenced ran".to_owned(),
            Hook::Failed => {
                let why = self.on_fenced_failure.as_deref().unwrap_or_default();
                format!("on_fenced failed and is tried again: {why}")
            }
        };
        let kept = match (self.diverged_point, self.diverged_waits) {
            (Some(number), _) => format!("its disks are kept as diverged point {number}"),
            (None, true) => "what its disks held waits to be sent as a diverged point".to_owned(),
            (None, false) => "what its disks hold is not kept yet".to_owned(),
        };
        format!("VM {vm} was failed over {run}at {at}; it is not captured; {hook}; {kept}")
    }

    /// What its disks hold is to be kept now, and is not: a capture that fails then is a failure.
    pub fn lacks_its_point(&self) -> bool {
        let heeded = matches!(self.on_fenced, Hook::Ran | Hook::NotConfigured);
        heeded && self.diverged_point.is_none() && !self.diverged_waits
    }

    pub fn finding(&self, vm: &str) -> Finding {
        Finding::new(
            "it was failed over",
            format!("VM {vm}"),
            self.words(vm),
            "see that nobody works on it here; it is captured again once `sparesite-restore undo` has ended that run",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_format::PointId;

    #[test]
    fn one_line_says_who_when_what_was_done_and_where_it_is_kept() {
        let fence = |on_fenced, kept| {
            let fence = VmFence {
                number: 9,
                run: Some("4f2a".into()),
                time: "noon".into(),
                on_fenced,
                kept,
            };
            Fenced::from(fence).words("web")
        };
        let begin = "VM web was failed over by run 4f2a at noon; it is not captured; ";
        let point = PointId {
            epoch: 2,
            sequence: 5,
        };
        for (on_fenced, kept, rest) in [
            (
                None,
                Kept::No,
                "on_fenced has not run yet; what its disks hold is not kept yet",
            ),
            (
                Some(OnFenced::Failed("no qm".into())),
                Kept::No,
                "on_fenced failed and is tried again: no qm; what its disks hold is not kept yet",
            ),
            (
                Some(OnFenced::Nothing),
                Kept::Waits,
                "no on_fenced is configured; what its disks held waits to be sent as a diverged point",
            ),
            (
                Some(OnFenced::Done),
                Kept::Point(point),
                "on_fenced ran; its disks are kept as diverged point 5",
            ),
        ] {
            assert_eq!(fence(on_fenced, kept), format!("{begin}{rest}"));
        }
    }
}
