//! What keeps a Windows guest from running at a target.

use super::Findings;
use crate::facts::Facts;

pub fn rules(_facts: &Facts, _findings: &mut Findings) {}
