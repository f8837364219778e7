//! Newest points that other manifests tell of: a store that hides or loses the end of a VM's row of points is found out,
//! as long as it shows a later manifest of any VM of that gateway.

use std::collections::BTreeMap;
use vault_format::ids::{ObjectHash, VmId};
use vault_format::manifest::Facts;
use vault_format::{PointId, names};

/// What the newest points were at last.
#[derive(Debug, Default)]
pub(super) struct Promised(BTreeMap<VmId, Promise>);

#[derive(Debug)]
struct Promise {
    point: PointId,
    hash: ObjectHash,
    by: String,
}

impl Promised {
    /// Takes in a trusted manifest.
    pub fn note(&mut self, object: &str, facts: &Facts) {
        for newest in &facts.newest {
            let known = self.0.get(&newest.vm_id);
            if known.is_none_or(|known| known.point < newest.point) {
                let promise = Promise {
                    point: newest.point,
                    hash: newest.hash,
                    by: object.to_owned(),
                };
                self.0.insert(newest.vm_id, promise);
            }
        }
    }

    /// Objects that are gone or were replaced, and why that is known. `newest` gives a VM's newest point that is stored
    /// (older ones may have expired), `hash` the hash of one that could be read.
    pub fn broken(
        &self,
        newest: impl Fn(&VmId) -> Option<PointId>,
        hash: impl Fn(&str) -> Option<ObjectHash>,
    ) -> Vec<(String, String)> {
        let broken = |(vm, promise): (&VmId, &Promise)| {
            let object = names::point(vm, promise.point);
            let by = &promise.by;
            if newest(vm).is_none_or(|stored| stored < promise.point) {
                let why = format!(
                    "it is missing: {by} tells of it, and nothing newer of its VM is there"
                );
                return Some((object, why));
            }
            let found = hash(&object)?;
            let why = format!("it is not the manifest that {by} tells of");
            (found != promise.hash).then_some((object, why))
        };
        self.0.iter().filter_map(broken).collect()
    }
}
