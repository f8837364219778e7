//! What the daemon asks of those who capture and upload.

use std::future::Future;

use jiff::Timestamp;

use crate::{fenced::Fenced, jobs::Job, proofs::Proofs};

/// Does what the schedule decided. Its futures run as tasks of their own; each watches for the
/// interrupt itself and ends soon after it, with jobs whose outcome is `Stopped`. What has not
/// ended within some seconds is dropped where it waits.
pub trait Work: Send + Sync + 'static {
    /// What is known now. Asked at the start, after each job and now and then: cheap, no network.
    fn standing(&self) -> impl Future<Output = anyhow::Result<Standing>> + Send;

    /// Captures VMs, which are places in the configuration, at one instant. `first`: at least one of
    /// them has no point yet. A record for each VM at least, the one that decides last: `Failed`
    /// has the schedule try again later.
    fn capture(&self, vms: Vec<usize>, first: bool) -> impl Future<Output = Vec<Job>> + Send;

    /// Sends the next point of the outbox. A record of it, or of why it could not be sent; none, if nothing of what waits
    /// can be sent for now.
    fn upload(&self) -> impl Future<Output = Vec<Job>> + Send;

    /// The vault's own time of its newest answer: another one is a newer answer.
    fn vault_answered(&self) -> Option<Timestamp>;
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// In the order of the configuration.
    pub vms: Vec<Known>,
    /// In the outbox.
    pub queued_bytes: u64,
}

/// What is known of one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Its newest published point.
    pub published: Option<Published>,
    pub proofs: Proofs,
    /// The instant of its newest point, published or queued.
    pub captured_at: Option<Timestamp>,
    /// How many of its points wait in the outbox.
    pub queued: u32,
    /// Passes over its running disks are under way.
    pub passes: bool,
    /// It is captured without its group until it has a point again.
    pub alone: bool,
    /// It was failed over.
    pub fence: Option<Fenced>,
    /// In words, for people: `first sync, pass 2: 37 %`.
    pub doing: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub sequence: u64,
    pub id: String,
    pub captured_at: Timestamp,
    pub consistency: String,
}
