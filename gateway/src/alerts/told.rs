//! What was told so far: the difference to what stands is what to tell. Kept in the state folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Subject;
use crate::whole_file;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub subject: Subject,
    /// It is over.
    pub resolved: bool,
    pub message: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// Raised, and not yet told to be resolved.
    raised: BTreeSet<Subject>,
    /// When each VM was first seen in the configuration.
    known_since: BTreeMap<String, Timestamp>,
}

#[derive(Debug)]
pub struct Told {
    path: PathBuf,
    content: Content,
}

/// Some hundred VMs come to some ten KiB.
const MOST_BYTES: u64 = 1 << 20;

impl Told {
    /// A file that is lost or cannot be read is one that was never written: what stands is told again.
    pub fn open(state: &Path) -> Self {
        let path = state.join("alerts.json");
        let content = whole_file::read(&path, MOST_BYTES);
        let content = content.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Told {
            path,
            content: content.unwrap_or_default(),
        }
    }

    /// When the gateway first had this VM; now, if that is now. Forgets those that are gone.
    pub fn known_since(&mut self, vms: &[String], now: Timestamp) -> io::Result<Vec<Timestamp>> {
        let known = &mut self.content.known_since;
        let before = known.clone();
        known.retain(|vm, _| vms.contains(vm));
        for vm in vms {
            // Set back if the clock was: it would be new for longer than it is.
            let since = known.entry(vm.clone()).or_insert(now);
            *since = (*since).min(now);
        }
        let since = vms.iter().map(|vm| known[vm]).collect();
        if *known != before {
            self.save()?;
        }
        Ok(since)
    }

    /// What to tell, of what stands. What is over comes first.
    pub fn changes(&self, standing: &BTreeMap<Subject, String>) -> Vec<Change> {
        let over = self
            .content
            .raised
            .iter()
            .filter(|subject| !standing.contains_key(subject));
        let over = over.map(|subject| Change {
            subject: subject.clone(),
            resolved: true,
            message: format!("{}: {} is resolved", subject.vm, subject.alert),
        });
        let new = standing
            .iter()
            .filter(|(subject, _)| !self.content.raised.contains(subject));
        let new = new.map(|(subject, message)| Change {
            subject: subject.clone(),
            resolved: false,
            message: message.clone(),
        });
        over.chain(new).collect()
    }

    /// After it was told: a death in between tells it twice, and never not at all.
    pub fn told(&mut self, change: &Change) -> io::Result<()> {
        match change.resolved {
            true => self.content.raised.remove(&change.subject),
            false => self.content.raised.insert(change.subject.clone()),
        };
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        whole_file::write(&self.path, &serde_json::to_vec(&self.content)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::AlertKind;

    fn stands(vms: &[&str]) -> BTreeMap<Subject, String> {
        let alert = AlertKind::RpoMissed;
        let subject = |vm: &&str| Subject {
            vm: (*vm).into(),
            alert,
            fence: None,
        };
        vms.iter()
            .map(|vm| (subject(vm), format!("{vm} is late")))
            .collect()
    }

    fn words(changes: &[Change]) -> Vec<&str> {
        changes
            .iter()
            .map(|change| change.message.as_str())
            .collect()
    }

    #[test]
    fn each_alert_is_told_once_and_once_more_when_it_is_over() {
        let state = tempfile::tempdir().expect("a folder");
        // Each step is another start.
        let step = |standing: &[&str]| {
            let mut told = Told::open(state.path());
            let changes = told.changes(&stands(standing));
            changes
                .iter()
                .for_each(|change| told.told(change).expect("saved"));
            changes
        };
        assert_eq!(words(&step(&["a"])), ["a is late"]);
        assert_eq!(words(&step(&["a"])), [""; 0]);
        assert_eq!(
            words(&step(&["b"])),
            ["a: rpo-missed is resolved", "b is late"]
        );
        assert_eq!(words(&step(&[])), ["b: rpo-missed is resolved"]);
        assert_eq!(words(&step(&["a"])), ["a is late"]);
        // Not told: it comes again.
        let told = Told::open(state.path());
        assert_eq!(words(&told.changes(&stands(&[]))).len(), 1);
        assert_eq!(words(&step(&[])).len(), 1);
    }

    #[test]
    fn vms_are_known_from_the_first_start_on() {
        let state = tempfile::tempdir().expect("a folder");
        let at = |second| Timestamp::from_second(second).expect("a time");
        let known = |vms: &[&str], now| {
            let vms: Vec<_> = vms.iter().map(|vm| (*vm).to_owned()).collect();
            Told::open(state.path())
                .known_since(&vms, at(now))
                .expect("saved")
        };
        assert_eq!(known(&["a"], 100), [at(100)]);
        assert_eq!(known(&["b", "a"], 200), [at(200), at(100)]);
        assert_eq!(known(&["b"], 150), [at(150)]);
        assert_eq!(known(&["a"], 300), [at(300)]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_file() {
        let state = tempfile::tempdir().expect("a folder");
        fs::write(state.path().join("alerts.json"), b"{\"raised\": 7").expect("written");
        assert_eq!(Told::open(state.path()).content, Content::default());
    }
}
