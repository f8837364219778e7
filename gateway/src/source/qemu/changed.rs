//! How much changed since an earlier capture, asked before anything is frozen.

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
