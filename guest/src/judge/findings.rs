//! Findings as they come in, and the verdict that they make.

use super::{Finding, Judgement, Severity, Target, Verdict};

/// What the rules add to.
#[derive(Debug)]
pub struct Findings {
    pub target: Target,
    list: Vec<Finding>,
    undecided: Vec<String>,
}

impl Findings {
    pub fn new(target: Target) -> Self {
        Findings {
            target,
            list: Vec::new(),
            undecided: Vec::new(),
        }
    }

    pub fn add(
        &mut self,
        code: &'static str,
        severity: Severity,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let finding = Finding {
            code,
            severity,
            target: self.target,
            what: what.into(),
            why: why.into(),
            remedy: remedy.into(),
        };
        if !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }

    /// Rules that add to a list of their own.
    pub fn extend(&mut self, add: impl FnOnce(&mut Vec<Finding>)) {
        add(&mut self.list);
    }

    /// Something that decides whether it boots could not be read.
    pub fn undecided(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.undecided.contains(&what) {
            self.undecided.push(what);
        }
    }

    pub fn into_judgement(mut self) -> Judgement {
        // Stable: findings of one severity stay in the order of the rules, which is that of booting.
        self.list
            .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let blocked = self
            .list
            .iter()
            .any(|finding| finding.severity == Severity::Blocks);
        let verdict = match (blocked, self.undecided.is_empty()) {
            (true, _) => Verdict::DoesNotBoot,
            (false, false) => Verdict::Unknown,
            (false, true) => Verdict::Boots,
        };
        Judgement {
            target: self.target,
            verdict,
            findings: self.list,
            undecided: self.undecided,
        }
    }
}

impl Target {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Target::Aws => "EC2",
            Target::Azure => "Azure",
            Target::Qemu => "QEMU",
        }
    }
}
