//! Whose turn it is with the gateway, of which there is one: slices of long reading, and captures between them. In the order
//! of the fields, and the gateway last.

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use vault_store::gateway::Gateway;

use super::{CaptureError, Capturer};

#[derive(Default)]
pub(super) struct Turns {
    /// A list that its hook keeps frozen, or a snapshot of it, against slices of what keeps nobody.
    kept: RwLock<()>,
    /// One slice waits at a time: else a capture would wait for all that wait.
    slicing: Mutex<()>,
    /// Slices against captures, which take the gateway several times, and wait for a slice once.
    slices: RwLock<()>,
}

/// No slice that keeps nobody comes between, as long as this lives.
pub(super) struct Keeping<'t> {
    _kept: RwLockReadGuard<'t, ()>,
}

/// No slice comes between, as long as this lives. Who has it must not begin one.
pub(super) struct Between<'t> {
    _slices: RwLockReadGuard<'t, ()>,
}

/// The gateway, between slices.
pub(super) struct Turn<'t> {
    pub gateway: MutexGuard<'t, Gateway>,
    _between: Between<'t>,
}

/// The gateway for a slice.
pub(super) struct Slice<'t> {
    pub gateway: MutexGuard<'t, Gateway>,
    _slices: RwLockWriteGuard<'t, ()>,
    _slicing: MutexGuard<'t, ()>,
    _kept: Option<RwLockWriteGuard<'t, ()>>,
}

impl Capturer {
    /// The gateway, when it is free.
    pub(super) async fn turn<'g>(
        &self,
        gateway: &'g Mutex<Gateway>,
    ) -> Result<MutexGuard<'g, Gateway>, CaptureError> {
        self.unless_interrupted(gateway.lock()).await
    }

    pub(super) async fn between_slices(&self) -> Result<Between<'_>, CaptureError> {
        let _slices = self.unless_interrupted(self.turns.slices.read()).await?;
        Ok(Between { _slices })
    }

    pub(super) async fn turn_between_slices<'t>(
        &'t self,
        gateway: &'t Mutex<Gateway>,
    ) -> Result<Turn<'t>, CaptureError> {
        let _between = self.between_slices().await?;
        let gateway = self.turn(gateway).await?;
        Ok(Turn { gateway, _between })
    }

    pub(super) async fn keeping(&self) -> Result<Keeping<'_>, CaptureError> {
        let _kept = self.unless_interrupted(self.turns.kept.read()).await?;
        Ok(Keeping { _kept })
    }

    /// `keeps`: something is frozen, or held, until the last slice.
    pub(super) async fn turn_for_slice<'t>(
        &'t self,
        gateway: &'t Mutex<Gateway>,
        keeps: bool,
    ) -> Result<Slice<'t>, CaptureError> {
        let turns = &self.turns;
        let slice = async {
            let _kept = match keeps {
                true => None,
                false => Some(turns.kept.write().await),
            };
            let _slicing = turns.slicing.lock().await;
            let _slices = turns.slices.write().await;
            Slice {
                gateway: gateway.lock().await,
                _slices,
                _slicing,
                _kept,
            }
        };
        self.unless_interrupted(slice).await
    }
}
