//! The daemon: one loop that owns all it knows, decides by `next_action`, and hands the doing to a
//! [`Work`]. It captures nothing itself.

mod clock;
mod daemon;
mod journal;
mod memory;
mod notify;
mod pace;
mod progress;
mod status_file;
#[cfg(test)]
mod tests;
mod work;

pub use clock::{Clock, SystemClock};
pub use daemon::Daemon;
pub use notify::Notifier;
pub use pace::follow_caps;
pub use status_file::{LiveStatus, LiveVm, Presence, RunLock, presence};
pub use work::{Known, Published, Standing, Work};
