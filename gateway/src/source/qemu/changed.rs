//! How much changed since an earlier capture, asked before anything is frozen.

use std::fmt;

use vault_format::ids::CaptureId;

use super::{
    LiveVm,
    checkpoint::DiskRequest,
    position::{self, DiskNow, NoDelta},
    view::BlockView,
};
use crate::source::qmp::QmpError;

/// Bytes that a capture of these disks would read; or why disks of them have to be compared in full.
pub async fn changed_bytes(
    vm: &LiveVm,
    disks: &[DiskRequest],
) -> Result<Result<u64, Lost>, QmpError> {
    let mut session = vm.monitor.session().await?;
    let view = BlockView::of(&mut session).await?;
    let (mut bytes, mut lost) = (0, Vec::new());
    for wish in disks {
        let device = view.devices.iter().find(|device| device.id == wish.id);
        let Some(image) = device.and_then(|device| view.image(device)) else {
            continue;
        };
        let now = DiskNow {
            size_bytes: image.image.virtual_size,
            driver: &image.driver,
        };
        // Of a shared disk it is what this VM changed: all of it is read, and what others changed is not known.
        match position::plan(&vm.mark, now, &image.dirty_bitmaps, &wish.trusted).delta {
            Ok(delta) => bytes += delta.dirty_bytes,
            Err(why) => lost.push((wish.id.clone(), why)),
        }
    }
    Ok(match lost.is_empty() {
        true => Ok(bytes),
        false => Err(Lost(lost)),
    })
}

/// Disks whose changes are not known, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost(pub Vec<(String, NoDelta)>);

impl Lost {
    /// Each disk's, in words.
    pub fn reasons(&self) -> Vec<String> {
        let all = self.0.iter();
        all.map(|(disk, why)| format!("disk {disk}: {why}"))
            .collect()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons().join("; "))
    }
}

/// Bytes that changed in all disks since a capture began.
pub async fn changed_since(vm: &LiveVm, capture: &CaptureId) -> Result<u64, QmpError> {
    let mut session = vm.monitor.session().await?;
    let view = BlockView::of(&mut session).await?;
    let name = vm.mark.bitmap(capture);
    let bitmaps = view.nodes.values().flat_map(|node| &node.dirty_bitmaps);
    let counts = bitmaps.filter(|bitmap| bitmap.name == name);
    Ok(counts.map(|bitmap| bitmap.count).sum())
}
