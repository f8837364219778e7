//! The loop: refresh what is known, publish it, begin what is due, wait for what ends first.

mod outward;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use vault_store::objects::{Rate, Throttle};

use super::{
    Clock, Notifier, Standing, Work,
    journal::Journal,
    pace::{cap_now, follow_caps, until},
    progress::Progress,
};
use crate::{
    alerts::Told,
    config::{Config, Source},
    interrupt::Interrupt,
    jobs::{Job, JobKind, JobOutcome},
    schedule::{Action, Failures, Place, Schedule, UplinkStanding, VmStanding, next_action},
};

/// Nothing is overlooked for longer: a clock that was set, words of a long job.
const TICK: Duration = Duration::from_secs(30);
/// For jobs to end after the interrupt; of the 10 s that a stop may take.
const GRACE: Duration = Duration::from_secs(8);
/// After alerts could not be told.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// After an upload that found nothing to send: what waits needs a pack that is on its way, or its VM is fenced.
const ASK_AGAIN: Duration = Duration::from_secs(30);

pub struct Daemon<W, C> {
    config: Arc<Config>,
    work: Arc<W>,
    clock: Arc<C>,
    throttle: Throttle,
    notifier: Notifier,
    interrupt: Interrupt,
    journal: Journal,
    standing: Standing,
    /// A VM each, in the order of the configuration.
    running: Vec<bool>,
    known_since: Vec<Timestamp>,
    uploading: bool,
    upload_failures: Failures,
    upload_failure: Option<String>,
    nothing_to_send_before: Instant,
    progress: Progress,
    /// `None` while the alerts are being told.
    told: Option<Told>,
    tell_after: Instant,
    tasks: JoinSet<Vec<Job>>,
    /// What each task does.
    doing: HashMap<Id, Doing>,
    telling: JoinSet<Told>,
}

/// What a task is for.
#[derive(Debug, Clone)]
enum Doing {
    Capture {
        vms: Vec<usize>,
        began: Timestamp,
        /// The vault's newest answer before it.
        answered: Option<Timestamp>,
    },
    Upload {
        began: Timestamp,
    },
}

impl<W: Work, C: Clock> Daemon<W, C> {
    /// The state folder is locked by the caller.
    pub fn new(
        config: Arc<Config>,
        work: Arc<W>,
        clock: Arc<C>,
        throttle: Throttle,
        notifier: Notifier,
        interrupt: Interrupt,
    ) -> anyhow::Result<Self> {
        let names: Vec<_> = config.vms.iter().map(|vm| vm.name.clone()).collect();
        let mut told = Told::open(&config.state);
        let known_since = told.known_since(&names, clock.now())?;
        Ok(Daemon {
            journal: Journal::open(&config.state, names.into_iter())?,
            standing: Standing::default(),
            running: vec![false; config.vms.len()],
            known_since,
            uploading: false,
            upload_failures: Failures::default(),
            upload_failure: None,
            nothing_to_send_before: Instant::now(),
            progress: Progress::new(config.vms.len()),
            told: Some(told),
            tell_after: Instant::now(),
            tasks: JoinSet::new(),
            doing: HashMap::new(),
            telling: JoinSet::new(),
            config,
            work,
            clock,
            throttle,
            notifier,
            interrupt,
        })
    }

    /// Ends with the interrupt, within 10 s of it.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let (uplink, zone) = (self.config.uplink.clone(), self.config.timezone.clone());
        let (throttle, clock) = (self.throttle.clone(), self.clock.clone());
        // Before anything is sent; the task keeps it so.
        self.throttle.set(cap_now(&uplink, &zone, clock.now()).rate);
        let pace = tokio::spawn(follow_caps(uplink, zone, throttle, clock));
        let ended = self.turns().await;
        self.notifier.stopping();
        self.stop().await;
        pace.abort();
        ended
    }

    async fn turns(&mut self) -> anyhow::Result<()> {
        let mut ready = false;
        while !self.interrupt.came() {
            self.standing = self.work.standing().await?;
            self.watch_progress();
            self.publish();
            if !std::mem::replace(&mut ready, true) {
                self.notifier.ready();
            }
            self.notifier.alive();
            self.tell_alerts();
            let next = self.begin();
            self.wait(next).await;
        }
        Ok(())
    }

    fn watch_progress(&mut self) {
        let is_open = self.throttle.rate() != Rate::Off;
        for (place, known) in self.standing.vms.iter().enumerate() {
            let may_move = is_open && self.running[place];
            self.progress.note(place, &known.doing, may_move);
        }
    }

    /// Begins all that may begin; gives the time of what comes next.
    fn begin(&mut self) -> Option<Timestamp> {
        loop {
            let now = self.clock.now();
            let vms = self.vm_standings();
            match next_action(now, &vms, &self.uplink_standing(now), &Schedule::default()) {
                Action::Wait { until } => return until,
                Action::Capture { vms } => self.begin_capture(vms, false, now),
                Action::FirstSync { vms } => self.begin_capture(vms, true, now),
                Action::Upload => {
                    self.uploading = true;
                    let work = self.work.clone();
                    let task = self.tasks.spawn(async move { work.upload().await });
                    self.doing.insert(task.id(), Doing::Upload { began: now });
                }
            }
        }
    }

    fn begin_capture(&mut self, vms: Vec<usize>, first: bool, began: Timestamp) {
        for vm in &vms {
            self.running[*vm] = true;
        }
        let (work, asked) = (self.work.clone(), vms.clone());
        let answered = work.vault_answered();
        let task = self
            .tasks
            .spawn(async move { work.capture(asked, first).await });
        let doing = Doing::Capture {
            vms,
            began,
            answered,
        };
        self.doing.insert(task.id(), doing);
    }

    async fn wait(&mut self, next: Option<Timestamp>) {
        let most = self.notifier.beat().map_or(TICK, |beat| beat.min(TICK));
        let length = until(self.clock.now(), next).min(most);
        tokio::select! {
            () = self.interrupt.wait() => {}
            Some(ended) = self.tasks.join_next_with_id() => self.take_in(ended),
            Some(told) = self.telling.join_next() => self.take_back(told.ok()),
            () = tokio::time::sleep(length) => {}
        }
    }

    fn take_back(&mut self, told: Option<Told>) {
        self.told = Some(told.unwrap_or_else(|| Told::open(&self.config.state)));
        self.tell_after = Instant::now() + TELL_AGAIN;
    }

    fn take_in(&mut self, ended: Result<(Id, Vec<Job>), JoinError>) {
        let (id, jobs) = match ended {
            Ok((id, jobs)) => (id, Ok(jobs)),
            Err(error) => (error.id(), Err(format!("internal fault: {error}"))),
        };
        let Some(doing) = self.doing.remove(&id) else {
            return;
        };
        let jobs = self.settled(&doing, jobs);
        for job in &jobs {
            self.journal.record(job);
        }
        match doing {
            Doing::Capture { vms, answered, .. } => {
                vms.iter().for_each(|vm| self.running[*vm] = false);
                self.captured(answered);
            }
            Doing::Upload { .. } => self.uploaded(&jobs),
        }
    }

    /// What it brought may be what an upload lacked. Where the vault answered it, a failed upload need not wait either.
    fn captured(&mut self, answered: Option<Timestamp>) {
        self.nothing_to_send_before = Instant::now();
        if self.work.vault_answered() != answered {
            self.upload_failures = self.upload_failures.at_once();
        }
    }

    /// A record for each VM, whatever came of it: without one, it would be begun again at once.
    fn settled(&self, doing: &Doing, jobs: Result<Vec<Job>, String>) -> Vec<Job> {
        let now = self.clock.now();
        let (kind, began, vms) = match doing {
            Doing::Capture { vms, began, .. } => (JobKind::Capture, *began, &vms[..]),
            Doing::Upload { began } => (JobKind::Upload, *began, &[][..]),
        };
        let (mut jobs, why, is_fault) = match jobs {
            Ok(jobs) => (jobs, "it ended without a word".to_owned(), false),
            Err(why) => (Vec::new(), why, true),
        };
        let failed = |vm: Option<&str>| {
            let mut job = Job::new(kind, vm, began, now, JobOutcome::Failed);
            job.why.push(why.clone());
            job
        };
        for vm in vms.iter().map(|vm| self.config.vms[*vm].name.as_str()) {
            if !jobs_of(&jobs, vm) {
                jobs.push(failed(Some(vm)));
            }
        }
        if vms.is_empty() && is_fault {
            jobs.push(failed(None));
        }
        jobs
    }

    fn uploaded(&mut self, jobs: &[Job]) {
        self.uploading = false;
        match jobs.iter().find(|job| job.outcome == JobOutcome::Failed) {
            Some(failed) => {
                self.upload_failures = self.upload_failures.and_one_more(failed.end);
                self.upload_failure = failed.why.first().cloned();
            }
            None if jobs.is_empty() => self.nothing_to_send_before = Instant::now() + ASK_AGAIN,
            None if jobs.iter().all(|job| job.outcome == JobOutcome::Stopped) => {}
            None => {
                self.upload_failures = Failures::default();
                self.upload_failure = None;
            }
        }
    }

    fn vm_standings(&self) -> Vec<VmStanding> {
        let vms = self.config.vms.iter().zip(&self.standing.vms).enumerate();
        let standing = |(place, (vm, known)): (usize, (&crate::config::Vm, &super::Known))| {
            let memory = self.journal.memory(place);
            VmStanding {
                name: vm.name.clone(),
                group: self
                    .config
                    .group_of(&vm.name)
                    .map(|group| group.name.clone()),
                alone: known.alone,
                place: match (&vm.source, vm.host()) {
                    (Source::Disks(_) | Source::Nbd(_), _) => Place::Lists,
                    (_, None) => Place::Here,
                    (_, Some(host)) => Place::Host(host),
                },
                priority: vm.priority,
                rpo_target: self.config.policy_of(vm).rpo_target.into(),
                // A fenced VM has no newest point that it could be late by: it starves nobody.
                captured_at: match known.fence {
                    Some(_) => known.captured_at.max(memory.failures.last_at),
                    None => known.captured_at,
                },
                queued: known.queued,
                took: memory.took,
                failures: memory.failures,
                running: self.running[place],
                passes: known.passes,
                stalled: self.progress.is_stalled(place),
            }
        };
        vms.map(standing).collect()
    }

    fn uplink_standing(&self, now: Timestamp) -> UplinkStanding {
        let cap = cap_now(&self.config.uplink, &self.config.timezone, now);
        // Also what captures that failed have left, which takes room in the outbox.
        let waits =
            self.standing.queued_bytes > 0 || self.standing.vms.iter().any(|vm| vm.queued > 0);
        UplinkStanding {
            waiting: waits && self.nothing_to_send_before <= Instant::now(),
            running: self.uploading,
            failures: self.upload_failures,
            // Off for good is off until somebody changes the configuration.
            off_until: (cap.rate == Rate::Off).then(|| cap.until.unwrap_or(Timestamp::MAX)),
        }
    }

    /// Waits for what runs; what does not end is dropped where it waits.
    async fn stop(&mut self) {
        let deadline = Instant::now() + GRACE;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await
        {
            self.take_in(ended);
        }
        for doing in std::mem::take(&mut self.doing).into_values() {
            tracing::warn!("dropped, since it did not stop: {doing:?}");
        }
        self.tasks.abort_all();
        self.telling.abort_all();
        if let Ok(standing) = self.work.standing().await {
            self.standing = standing;
            self.publish();
        }
    }
}

fn jobs_of(jobs: &[Job], vm: &str) -> bool {
    jobs.iter().any(|job| job.vm.as_deref() == Some(vm))
}
