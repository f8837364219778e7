//! The sending half: the outbox's packs, a few at once, and each point when all that it needs has arrived. It may be given
//! up at any moment; what arrived is not sent again.

use super::Shared;
use super::outbox_plan::{Step, WaitingPacks, WaitingPoint, closure, plan_uploads, ready_point};
use super::rows::{PackRow, QueueRow};
use crate::StoreError;
use crate::objects::ObjectError;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;
use vault_format::{PointId, VmId};

/// What one call sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub packs: u64,
    pub bytes: u64,
    /// VM and point of what was published, in order.
    pub points: Vec<(String, PointId)>,
    /// Something waits for a pack that is not in the outbox: a capture under way brings it, or the next one asks for it.
    pub is_blocked: bool,
    /// VMs whose next point cannot be published, and why; what else waited was sent.
    pub refused: Vec<(String, String)>,
}

/// Sends what waits. One at a time works, others wait for it.
pub struct Uploader {
    pub(super) shared: Arc<Shared>,
}

/// What is being sent: it is not replaced any more.
#[derive(Debug, Default)]
pub(super) struct Busy {
    point: Mutex<Option<u64>>,
    packs: Mutex<HashSet<u64>>,
    /// Held by the one that works.
    turn: tokio::sync::Mutex<()>,
}

impl Busy {
    /// The capture being published. It does not change while the guard is held.
    pub fn point(&self) -> MutexGuard<'_, Option<u64>> {
        self.point.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn packs(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mark in `Busy`, whatever comes of the work.
struct Mark<'s> {
    busy: &'s Busy,
    packs: HashSet<u64>,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        *self.busy.point() = None;
        self.busy.packs().retain(|pack| !self.packs.contains(pack));
    }
}

type Landed = Result<(u64, u64), ObjectError>;

/// A VM whose points cannot be published.
struct Refused {
    vm: VmId,
    name: String,
    why: StoreError,
}

type Doing<'a, 'm> = (
    &'a mut Sent,
    &'a mut JoinSet<Landed>,
    &'a mut Mark<'m>,
    &'a mut Vec<Refused>,
);

impl Uploader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Uploader { shared }
    }

    /// Sends everything that waits.
    pub async fn send_all(&self) -> Result<Sent, StoreError> {
        self.send(None, usize::MAX).await
    }

    /// Sends until a point is published.
    pub async fn send_point(&self) -> Result<Sent, StoreError> {
        self.send(None, 1).await
    }

    /// Sends what waits of one VM, and what that needs.
    pub async fn send_vm(&self, name: &str) -> Result<Sent, StoreError> {
        let vm_id = self.shared.key.id_key.vm_id(name);
        self.send(Some(&vm_id), usize::MAX).await
    }

    async fn send(&self, only: Option<&VmId>, points: usize) -> Result<Sent, StoreError> {
        let busy = &self.shared.busy;
        let _turn = busy.turn.lock().await;
        let mut mark = Mark {
            busy,
            packs: HashSet::new(),
        };
        let (mut sent, mut flying) = (Sent::default(), JoinSet::new());
        let mut refused = Vec::new();
        let outcome = loop {
            if sent.points.len() >= points {
                break Ok(());
            }
            let doing = (&mut sent, &mut flying, &mut mark, &mut refused);
            match self.next(only, doing).await {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        // What is nearly there need not be sent again.
        while let Some(landed) = flying.join_next().await {
            if let Ok(Ok(landed)) = landed {
                self.land(landed, &mut sent)?;
            }
        }
        outcome?;
        let name = |its: &Refused| (its.name.clone(), its.why.to_string());
        sent.refused = refused.iter().map(name).collect();
        let is_nothing = sent.points.is_empty() && sent.packs == 0;
        match refused.into_iter().next() {
            // The VM was asked for, or nothing else came of it.
            Some(first) if only.is_some() || is_nothing => Err(first.why),
            _ => Ok(sent),
        }
    }

    /// One step; false when nothing is left to do.
    async fn next(
        &self,
        only: Option<&VmId>,
        (sent, flying, mark, refused): Doing<'_, '_>,
    ) -> Result<bool, StoreError> {
        let shared = &self.shared;
        // In this order: all packs of a point are noted before it is.
        let rows = shared.waiting_points(only)?;
        let waiting = shared.waiting_packs()?;
        let packs = stands_on(&waiting);
        let point = |(ordinal, row): &(u64, QueueRow)| WaitingPoint {
            capture: *ordinal,
            vm: row.vm_id,
            priority: row.priority,
            needs: needs_of(*ordinal, row, &waiting),
        };
        let mut points: Vec<WaitingPoint> = rows.iter().map(point).collect();
        points.retain(|point| !refused.iter().any(|its| its.vm == point.vm));
        if let Some(capture) = ready_point(&points, &packs) {
            match shared.publish_next(capture).await {
                Ok(published) => sent.points.extend(published),
                // Of one VM, whoever waits behind it: the others go on.
                Err(why) if why.is_damage() || why.is_of_one_vm() => {
                    let row = rows.into_iter().find(|(ordinal, _)| *ordinal == capture);
                    let Some((
                        _,
                        QueueRow {
                            vm: name,
                            vm_id: vm,
                            ..
                        },
                    )) = row
                    else {
                        return Err(why);
                    };
                    refused.push(Refused { vm, name, why });
                }
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
        let mut steps = plan_uploads(&points, &packs);
        if only.is_some() {
            // Not what no point of this VM needs.
            let last = steps
                .iter()
                .rposition(|step| matches!(step, Step::Point(_)));
            steps.truncate(last.map_or(0, |last| last + 1));
        }
        let here = |step: &&Step| match step {
            Step::Pack(pack) => waiting
                .get(pack)
                .is_some_and(|row| shared.outbox.has(&row.name)),
            Step::Point(_) => false,
        };
        // A pack that is elsewhere blocks what needs it, and what comes after in the same VM; the rest goes on.
        sent.is_blocked = steps
            .iter()
            .any(|step| matches!(step, Step::Pack(_)) && !here(&step));
        let mut is_outdated = false;
        for step in steps.iter().filter(here) {
            let Step::Pack(ordinal) = step else { continue };
            if flying.len() >= shared.options.uploads {
                break;
            }
            if mark.packs.contains(ordinal) {
                continue;
            }
            if shared.set_out(*ordinal)? {
                mark.packs.insert(*ordinal);
                self.start(*ordinal, &waiting[ordinal], flying)?;
            } else {
                is_outdated = true;
            }
        }
        match flying.join_next().await {
            // What replaced a dropped pack is planned anew.
            None => Ok(is_outdated),
            Some(landed) => {
                let landed = landed.map_err(|e| {
                    StoreError::Other(format!("an upload ended unexpectedly: {e}"))
                })??;
                self.land(landed, sent)?;
                Ok(true)
            }
        }
    }

    fn start(
        &self,
        ordinal: u64,
        pack: &PackRow,
        flying: &mut JoinSet<Landed>,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let bytes = tokio::task::block_in_place(|| {
            let _held = shared.outbox.hold_files();
            shared.outbox.get(&pack.name)
        })?;
        // Whether what needs it is lost is for the capturing half to say, which may be building on it.
        let Some(bytes) = bytes else {
            return Ok(());
        };
        let (shared, name) = (shared.clone(), pack.name);
        flying.spawn(async move {
            let length = bytes.len() as u64;
            shared.send_pack(&name, bytes.into()).await?;
            Ok((ordinal, length))
        });
        Ok(())
    }

    fn land(&self, (ordinal, bytes): (u64, u64), sent: &mut Sent) -> Result<(), StoreError> {
        self.shared.state.mark_arrived(&[ordinal])?;
        (sent.packs, sent.bytes) = (sent.packs + 1, sent.bytes + bytes);
        self.shared.tidy_outbox()
    }
}

impl Shared {
    /// Marks a pack as on its way; false if a superseding capture has dropped it meanwhile. Sent all the same, it would be
    /// in the vault and in nobody's list.
    fn set_out(&self, pack: u64) -> Result<bool, StoreError> {
        let mut flying = self.busy.packs();
        let is_open = self.state.is_open(pack)?;
        Ok(is_open && flying.insert(pack))
    }

    /// The points that wait, of one VM or of all that may be published.
    fn waiting_points(&self, only: Option<&VmId>) -> Result<Vec<(u64, QueueRow)>, StoreError> {
        let mut points = Vec::new();
        for (ordinal, row) in self.state.queue()? {
            let is_asked = match only {
                Some(vm) => *vm == row.vm_id,
                None => self.may_publish(&row)?,
            };
            if is_asked && row.point.is_some() {
                points.push((ordinal, row));
            }
        }
        Ok(points)
    }

    /// Whether the VM is this gateway's to publish, as far as is known here.
    pub(super) fn may_publish(&self, row: &QueueRow) -> Result<bool, StoreError> {
        match self.check_own(&row.vm, &row.vm_id) {
            Err(error) if error.is_of_one_vm() => Ok(false),
            Err(error @ StoreError::State { .. }) => Err(error),
            _ => Ok(true),
        }
    }

    /// Publishes a capture, unless it has been replaced just now, or needs a pack that has not arrived: the capturing half
    /// works meanwhile, so what the caller saw is no proof.
    async fn publish_next(&self, capture: u64) -> Result<Option<(String, PointId)>, StoreError> {
        let _turn = self.publishing.lock().await;
        if self.state.header().epoch == 0 {
            return Err(StoreError::Other(
                "the gateway's state is in doubt: begin a cycle first, which rebuilds it".into(),
            ));
        }
        self.settle_pending().await?;
        let row = {
            let mut point = self.busy.point();
            let row = self.state.capture(capture)?;
            *point = row.is_some().then_some(capture);
            row
        };
        let Some((row, about)) = row.and_then(|row| Some((row.clone(), row.point?))) else {
            return Ok(None);
        };
        let waiting = self.waiting_packs()?;
        let needs = needs_of(capture, &row, &waiting);
        if !closure(&needs, &stands_on(&waiting)).is_empty() {
            *self.busy.point() = None;
            return Ok(None);
        }
        self.check_own(&row.vm, &row.vm_id)?;
        let name = row.vm.clone();
        let published = self.publish(capture, row, about).await;
        *self.busy.point() = None;
        Ok(Some((name, published?)))
    }
}

pub(super) fn stands_on(waiting: &HashMap<u64, PackRow>) -> WaitingPacks {
    let packs = waiting.iter();
    packs
        .map(|(ordinal, pack)| (*ordinal, pack.after.clone()))
        .collect()
}

/// All packs that a capture needs of those that wait.
pub(super) fn needs_of(
    ordinal: u64,
    row: &QueueRow,
    waiting: &HashMap<u64, PackRow>,
) -> BTreeSet<u64> {
    let own = waiting
        .iter()
        .filter(|(_, pack)| pack.capture == Some(ordinal));
    let own = own.map(|(pack, _)| *pack);
    own.chain(row.needs.iter().copied()).collect()
}
