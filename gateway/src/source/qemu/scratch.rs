//! Scratch space: where the old content of a block goes when a guest overwrites it during a
//! capture. Bounded on the host, so that a busy guest breaks the capture and nothing else.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{LiveVm, sweep::look_again};
use crate::source::qmp::QmpError;

const CLUSTER_BYTES: u64 = 64 << 10;
/// An image's tables for a disk of which nothing was kept yet.
const LEAST_BYTES: u64 = 1 << 20;
const CREATED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Less than this is filled in seconds by a guest that writes.
const LEAST_SPARE_BYTES: u64 = 256 << 20;

/// What `df -Pk` says that is free.
pub fn free_bytes(said: &str) -> Option<u64> {
    let fields = said.lines().nth(1)?.split_whitespace();
    let free = fields.rev().nth(2)?.parse::<u64>().ok()?;
    free.checked_mul(1024)
}

/// What a capture may use where the file system has `free` and `vms` are captured there at once; or what it would have,
/// which is too little. Half of what is free is left alone: other guests' disks may lie there, and a guest whose disk
/// cannot grow is paused by QEMU. Pure.
pub fn spare_bytes(free: u64, vms: u64, max_bytes: u64) -> Result<u64, u64> {
    let spare = (free / 2 / vms.max(1)).min(max_bytes);
    match spare < max_bytes.min(LEAST_SPARE_BYTES) {
        true => Err(spare),
        false => Ok(spare),
    }
}

/// What each disk may use of `max_bytes`: none gets more than it can need, and what is left over
/// goes to the others evenly. Pure.
pub fn shares(disks: &[u64], max_bytes: u64) -> Vec<u64> {
    // All of the disk, and its tables: 8 bytes for each cluster, twice, and room to spare.
    let need = |size: u64| size + size / 1024 + LEAST_BYTES;
    let mut shares = vec![0; disks.len()];
    let mut smallest_first: Vec<usize> = (0..disks.len()).collect();
    smallest_first.sort_by_key(|place| disks[*place]);
    let (mut left, mut waiting) = (max_bytes, disks.len() as u64);
    for place in smallest_first {
        let share = need(disks[place]).min(left / waiting);
        shares[place] = share.max(LEAST_BYTES).next_multiple_of(CLUSTER_BYTES);
        left = left.saturating_sub(share);
        waiting -= 1;
    }
    shares
}

/// The scratch image of one disk, and its filter, not yet inserted: nodes `bound`, `scratch` and
/// `cbw`. QEMU makes the file itself, so this works on any host.
pub async fn add_filter(
    vm: &LiveVm,
    number: usize,
    over: &str,
    disk_bytes: u64,
    share: u64,
) -> Result<String, QmpError> {
    let path = vm.scratch_file(number).display().to_string();
    let node = |kind: &str| vm.mark.node(&format!("{kind}{number}"));
    let (bound, scratch, filter) = (node("bound"), node("scratch"), node("cbw"));
    let file = json!({ "driver": "file", "filename": path, "size": share });
    create(vm, file).await?;
    // The raw node's size is the bound: a write past it fails, and only the snapshot breaks.
    let bounded = json!({
        "driver": "raw", "node-name": bound, "size": share,
        "file": { "driver": "file", "filename": path },
    });
    add(vm, bounded).await?;
    let image = json!({
        "driver": "qcow2", "file": bound, "size": disk_bytes, "cluster-size": CLUSTER_BYTES,
    });
    create(vm, image).await?;
    // Nothing in it outlives the capture, so nothing in it needs to be durable.
    let image = json!({
        "driver": "qcow2", "node-name": scratch, "file": bound, "cache": { "no-flush": true },
    });
    add(vm, image).await?;
    let above = json!({
        "driver": "copy-before-write", "node-name": filter, "file": over, "target": scratch,
        "on-cbw-error": "break-snapshot",
        "cbw-timeout": vm.place.scratch.timeout.as_secs().max(1),
    });
    add(vm, above).await?;
    Ok(filter)
}

async fn add(vm: &LiveVm, node: Value) -> Result<(), QmpError> {
    let mut session = vm.monitor.session().await?;
    session.run("blockdev-add", node).await.map(drop)
}

/// The monitor is let go between two looks: a slow disk takes its time.
async fn create(vm: &LiveVm, options: Value) -> Result<(), QmpError> {
    let job = vm.mark.node("create");
    let arguments = json!({ "job-id": job, "options": options });
    let mut session = vm.monitor.session().await?;
    session.run("blockdev-create", arguments).await?;
    let began = Instant::now();
    let refused = |desc: String| QmpError::Refused {
        command: "blockdev-create".into(),
        class: String::new(),
        desc,
    };
    let outcome = loop {
        let jobs: Vec<super::view::Job> = session.ask("query-jobs", json!({})).await?;
        match jobs.into_iter().find(|other| other.id == job) {
            Some(ours) if ours.status == "concluded" => break ours.error,
            Some(_) if began.elapsed() < CREATED_WITHIN => {
                session = look_again(vm, session, began).await?;
            }
            Some(_) => return Err(refused("the scratch image is not made in time".into())),
            None => return Err(refused("somebody else ended the job".into())),
        }
    };
    session.run("job-dismiss", json!({ "id": job })).await?;
    outcome.map_or(Ok(()), |why| Err(refused(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn half_of_what_is_free_is_left_and_too_little_is_refused() {
        // (free, VMs at once, max)
        assert_eq!(spare_bytes(100 * GIB, 1, 10 * GIB), Ok(10 * GIB));
        assert_eq!(spare_bytes(8 * GIB, 1, 10 * GIB), Ok(4 * GIB));
        assert_eq!(spare_bytes(8 * GIB, 4, 10 * GIB), Ok(GIB));
        assert_eq!(spare_bytes(256 * MIB, 1, 10 * GIB), Err(128 * MIB));
        assert_eq!(spare_bytes(8 * GIB, 40, 10 * GIB), Err(8 * GIB / 80));
        // Somebody who asks for little gets it.
        assert_eq!(spare_bytes(256 * MIB, 1, 64 * MIB), Ok(64 * MIB));
        assert_eq!(spare_bytes(0, 1, 64 * MIB), Err(0));
    }

    #[test]
    fn what_is_free_is_read_from_df() {
        let said = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                    /dev/mapper/a b 1000 300 700 30% /var/tmp\n";
        assert_eq!(free_bytes(said), Some(700 * 1024));
        assert_eq!(free_bytes("df: no"), None);
    }

    #[test]
    fn a_small_disk_leaves_its_share_to_the_others() {
        let found = shares(&[100 * GIB, MIB, 200 * GIB], 10 * GIB);
        assert!(found[1] < 3 * MIB);
        assert!(found[0] > 4 * GIB && found[0] <= 5 * GIB, "{found:?}");
        assert!(found[2] > 4 * GIB && found[2] <= 5 * GIB, "{found:?}");
        let total: u64 = found.iter().sum();
        assert!(total <= 10 * GIB + 3 * CLUSTER_BYTES, "{total}");
    }

    #[test]
    fn no_disk_gets_more_than_it_can_need_and_each_gets_its_tables() {
        let roomy = shares(&[GIB], 100 * GIB);
        assert!(roomy[0] >= GIB && roomy[0] < GIB + 4 * MIB, "{roomy:?}");
        assert_eq!(shares(&[GIB, GIB], 0), [LEAST_BYTES, LEAST_BYTES]);
        assert_eq!(shares(&[], GIB), [0; 0]);
    }
}
