//! What keeps a Windows guest from running at a target.

use super::{Finding, Target};
use crate::windows::WindowsFacts;

/// All rules of one Windows.
pub fn rules(
    _facts: &WindowsFacts,
    _several_disks: bool,
    _disk_buses: &[String],
    _target: Target,
    _findings: &mut Vec<Finding>,
) {
}
