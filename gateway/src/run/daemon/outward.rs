//! What the daemon lets others know: the status file, systemd's status line, alerts.

use std::time::Duration;

use console::{show, units::BitRate};
use tokio::time::Instant;
use vault_store::objects::Rate;

use super::Daemon;
use crate::{
    alerts::{self, VmHealth},
    run::{
        Clock, Known, LiveStatus, Work,
        memory::Memory,
        status_file::{LivePoint, LiveVm, publish},
    },
};

impl<W: Work, C: Clock> Daemon<W, C> {
    /// That it cannot be written must not stop a capture.
    pub(super) fn publish(&self) {
        let status = self.live_status();
        if let Err(error) = publish(&self.config.state, &status) {
            tracing::error!("the status file cannot be written: {error}");
        }
        self.notifier.status(&self.words(&status));
    }

    fn live_status(&self) -> LiveStatus {
        let vms = self.config.vms.iter().zip(&self.standing.vms).enumerate();
        let vms = vms.map(|(place, (vm, known))| {
            let memory = self.journal.memory(place);
            // Of a fenced VM nothing but its last point is wanted.
            let failures = match &known.fence {
                Some(fence) if !fence.lacks_its_point() => 0,
                _ => memory.failures.count,
            };
            LiveVm {
                name: vm.name.clone(),
                published: known.published.as_ref().map(|point| LivePoint {
                    sequence: point.sequence,
                    id: point.id.clone(),
                    captured_at: point.captured_at,
                    consistency: point.consistency.clone(),
                }),
                proofs: known.proofs.clone(),
                queued: known.queued,
                running: self.running[place],
                doing: known.doing.clone().or_else(|| full(known, memory)),
                fence: known.fence.clone(),
                failures,
                last_failure: (failures > 0).then(|| memory.last_failure.clone()),
            }
        });
        LiveStatus {
            written_at: self.clock.now(),
            vms: vms.collect(),
            queued_bytes: self.standing.queued_bytes,
            uplink: match self.throttle.rate() {
                Rate::Unlimited => "unlimited".into(),
                Rate::Off => "off".into(),
                Rate::BytesPerSecond(rate) => BitRate(rate.get().saturating_mul(8)).to_string(),
            },
            upload_failure: self.upload_failure.clone(),
        }
    }

    fn words(&self, status: &LiveStatus) -> String {
        let health = self.health();
        let alerts = alerts::standing(self.clock.now(), &health).len();
        let count = |what: fn(&LiveVm) -> bool| status.vms.iter().filter(|vm| what(vm)).count();
        format!(
            "VMs: {}, captured now: {}, alerts: {alerts}; outbox: {}, uplink: {}",
            status.vms.len(),
            count(|vm| vm.running),
            show::size(status.queued_bytes),
            status.uplink,
        )
    }

    fn health(&self) -> Vec<VmHealth> {
        let vms = self.config.vms.iter().zip(&self.standing.vms).enumerate();
        let health = vms.map(|(place, (vm, known))| {
            let memory = self.journal.memory(place);
            // An uplink that fails is what fails a VM whose points wait for it.
            let upload = match known.queued {
                0 => 0,
                _ => self.upload_failures.count,
            };
            let (failures, last_failure) = match memory.failures.count >= upload {
                true => (memory.failures.count, memory.last_failure.clone()),
                false => (upload, self.upload_failure.clone().unwrap_or_default()),
            };
            VmHealth {
                name: vm.name.clone(),
                rpo_target: Duration::from(self.config.policy_of(vm).rpo_target),
                published_at: known.published.as_ref().map(|point| point.captured_at),
                known_since: self.known_since[place],
                failures,
                last_failure,
                fenced: known.fence.clone(),
            }
        });
        health.collect()
    }

    /// Beside the loop: the command may take its time.
    pub(super) fn tell_alerts(&mut self) {
        let Some(command) = self.config.alert_command.clone() else {
            return;
        };
        if Instant::now() < self.tell_after {
            return;
        }
        let standing = alerts::standing(self.clock.now(), &self.health());
        let Some(mut told) = self
            .told
            .take_if(|told| !told.changes(&standing).is_empty())
        else {
            return;
        };
        let (changes, interrupt) = (told.changes(&standing), self.interrupt.clone());
        self.telling.spawn(async move {
            alerts::tell(&command, &changes, &mut told, &interrupt).await;
            told
        });
    }
}

/// What a full outbox has come to, while it is so.
fn full(known: &Known, memory: &Memory) -> Option<String> {
    let count = memory.superseded;
    (known.queued > 0 && count > 0).then(|| {
        format!("the outbox is full: its newest point replaced {count} that waited for the uplink")
    })
}
