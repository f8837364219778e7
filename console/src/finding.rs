//! What a command that did its work found wrong.

use std::fmt::Write;

use serde::Serialize;

use crate::{print, show::printable};

/// Something that needs attention although the command did what it was asked: damage, a missed
/// RPO target, a consistency lower than asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong: `RPO target missed`.
    pub what: String,
    /// The VM, disk, object or file concerned: `VM dc01`.
    pub on: String,
    pub why: String,
    pub remedy: String,
}

impl Finding {
    pub fn new(
        what: impl Into<String>,
        on: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            what: what.into(),
            on: on.into(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

/// Prints findings for people on stdout; prints nothing when there are none. With `--json` they
/// belong into the command's one document instead.
pub fn print_findings(findings: &[Finding]) -> anyhow::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    print(&written(findings))
}

fn written(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(
            text,
            "finding: {}: {}",
            line(&finding.on),
            line(&finding.what)
        );
        for (name, value) in [("why", &finding.why), ("remedy", &finding.remedy)] {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name}: {}", line(value));
            }
        }
    }
    text
}

/// One line per value, so that `grep ^finding` counts them.
fn line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_lines_and_as_json() {
        let finding = Finding::new(
            "consistency is none, crash was asked",
            "VM files",
            "/srv/a.raw is in use\nby qemu",
            "",
        );
        assert_eq!(
            written(std::slice::from_ref(&finding)),
            "finding: VM files: consistency is none, crash was asked\n  \
             why: /srv/a.raw is in use by qemu\n"
        );
        assert_eq!(
            serde_json::to_value(&finding).expect("serializes"),
            serde_json::json!({
                "what": "consistency is none, crash was asked", "on": "VM files",
                "why": "/srv/a.raw is in use\nby qemu", "remedy": ""
            })
        );
    }
}
