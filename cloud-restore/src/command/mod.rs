//! One file a command: its arguments, what it does, what it prints; and what commands share.

pub mod assemble;
pub mod boot;
mod chosen_disks;
pub mod commit;
pub mod convert;
pub mod drill;
pub mod failover;
pub mod key_issue;
pub mod key_list;
pub mod key_revoke;
pub mod kit_check;
pub mod kit_new;
pub mod plan_check;
mod plan_cloud;
mod plan_file;
pub mod plan_keep;
pub mod plan_new;
pub mod plan_prices;
pub mod points;
pub mod preflight;
mod run_view;
pub mod runs;
pub mod serve;
pub mod sweep;
pub mod undo;
pub mod verify;
