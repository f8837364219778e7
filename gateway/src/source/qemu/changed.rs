//! How much changed since an earlier capture, asked before anything is frozen.

use vault_format::ids::CaptureId;

use super::{
    LiveVm,
    checkpoint::DiskRequest,
    position::{self, DiskNow, NoDelta},
    view::BlockView,
};
use crate::source::qmp::QmpError;

/// Bytes that a capture of these disks would read; or why one of them has to be compared in full.
pub async fn changed_bytes(
    vm: &LiveVm,
    disks: &[DiskRequest],
) -> Result<Result<u64, NoDelta>, QmpError> {
    let mut session = vm.monitor.session().await?;
    let view = BlockView::of(&mut session).await?;
    let mut bytes = 0;
    for wish in disks {
        let device = view.devices.iter().find(|device| device.id == wish.id);
        let Some(image) = device.and_then(|device| view.image(device)) else {
            continue;
        };
        let now = DiskNow {
            size_bytes: image.image.virtual_size,
            driver: &image.driver,
        };
        match position::plan(&vm.mark, now, &image.dirty_bitmaps, &wish.trusted).delta {
            Ok(delta) => bytes += delta.dirty_bytes,
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(bytes))
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
