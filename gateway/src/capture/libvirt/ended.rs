//! What is said of a backup job that ended otherwise than it should. Pure.

use console::Finding;

use crate::{
    capture::{CaptureError, at},
    config::Vm,
    source::libvirt::job::Ended,
};

/// Why the reading failed, where it is the job that ended.
pub(super) fn why(vm: &Vm, ended: &Ended) -> Option<CaptureError> {
    let words = match (ended.full, ended.gone) {
        (true, _) => {
            "the backup job was given up before its scratch space could fail a guest's write; raise `max` in [scratch], or give a folder with more room"
        }
        (_, true) => "the backup job ended: the VM was stopped, or somebody ended it",
        _ => return None,
    };
    Some(at(vm, &words))
}

pub(super) fn left(vm: &Vm, ended: &Ended) -> Option<Finding> {
    ended.left.then(|| {
        Finding::new(
            "a backup job of the capture may be left in libvirt",
            format!("VM {}", vm.name),
            "libvirt does not say that it ended; a script on the host goes on trying for an hour, and so does the next \
             capture",
            "see to libvirt there; `virsh domjobabort` ends it now",
        )
    })
}
