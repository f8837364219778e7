//! Runs, found in the vault.

use console::{Failure, show};
use jiff::{SignedDuration, Timestamp};
use recovery_plan::run::{Entry, Event, Phase, Run, RunKind, StepKind, StepState};
use vault_format::run_record::RunName;
use vault_store::read::{RunEntry, Runs};

use super::recorder::stored;
use crate::access::OpenVault;
use crate::failure::attempting;

const BEFORE_DEADLINE: SignedDuration = SignedDuration::from_mins(1);

/// A run of which the record was read.
pub struct Found {
    pub name: RunName,
    /// Or why its record cannot be gone on with.
    pub run: Result<Run, String>,
    /// As its first entry says; of any other record nothing is known.
    pub id: String,
    pub entries: Vec<Entry>,
    /// Entries that say nothing, and why.
    pub void: Vec<String>,
}

fn failed() -> impl FnOnce(vault_store::StoreError) -> Failure {
    attempting("cannot read the runs in the vault")
}

/// All runs, each plan's in their order. What a stranger put there is left out.
pub async fn all(open: &OpenVault) -> Result<Vec<Found>, Failure> {
    let runs = Runs::of(&open.vault);
    let mut found = Vec::new();
    for name in runs.list().await.map_err(failed())?.into_keys() {
        found.extend(read(name, runs.read(name).await.map_err(failed())?));
    }
    Ok(found)
}

/// The newest run of a plan, and the number that the next one has. That is taken by whoever creates its first entry: of two who
/// saw the same, one begins it. Tests that stand beside others have numbers of their own, for each of their names.
pub async fn newest(
    open: &OpenVault,
    plan: &str,
    beside: Option<&str>,
) -> Result<(Option<Found>, RunName), Failure> {
    let runs = Runs::of(&open.vault);
    // No plan's name has a blank.
    let plan = match beside {
        None => runs.plan_id(plan),
        Some(name) => runs.plan_id(&format!("{plan} beside {name}")),
    };
    let newest = runs.newest(plan).await.map_err(failed())?;
    let next = RunName {
        plan,
        run: newest.as_ref().map_or(1, |(name, _)| name.run + 1),
    };
    let found = newest.and_then(|(name, entries)| read(name, entries));
    Ok((found, next))
}

fn read(name: RunName, entries: Vec<RunEntry>) -> Option<Found> {
    let (said, unread) = stored(entries);
    let Event::Begun { run: id, .. } = &said.first()?.entry.event else {
        return None;
    };
    let run = Run::replay(&said);
    let void = run.iter().flat_map(|run| &run.void).chain(&unread);
    Some(Found {
        name,
        id: id.clone(),
        void: void
            .map(|(number, why)| format!("entry {number}: {why}"))
            .collect(),
        run: run.map_err(|error| error.to_string()),
        entries: said.into_iter().map(|stored| stored.entry).collect(),
    })
}

/// By its id, or by the name of its plan: then the newest, if no other test of it is open.
pub async fn named(open: &OpenVault, wanted: &str) -> Result<Found, Failure> {
    let mut all = all(open).await?;
    let of_plan = |found: &Found| found.run.as_ref().is_ok_and(|run| run.plan.name == wanted);
    let newest = || {
        let of_plan = all.iter().enumerate().filter(|(_, found)| of_plan(found));
        let begun = |found: &Found| found.run.as_ref().map(|run| run.begun_at).ok();
        of_plan
            .max_by_key(|(_, found)| (begun(found), found.name.run))
            .map(|(place, _)| place)
    };
    let by_id = all.iter().position(|found| found.id == wanted);
    let open_tests = all
        .iter()
        .filter(|found| of_plan(found) && found.is_open_test());
    let open_tests: Vec<&str> = open_tests.map(|found| found.id.as_str()).collect();
    if by_id.is_none() && open_tests.len() > 1 {
        return Err(Failure::usage(format!(
            "plan {:?} has {} tests that are open",
            show::printable(wanted),
            open_tests.len()
        ))
        .remedy(format!("name one: {}", open_tests.join(", "))));
    }
    match by_id.or_else(newest) {
        Some(place) => Ok(all.swap_remove(place)),
        None => {
            let known: Vec<&str> = all.iter().map(|found| found.id.as_str()).collect();
            let shown = show::printable(wanted);
            let failure = Failure::failed(format!("there is no run {shown:?}"));
            Err(match known.is_empty() {
                true => failure.because("the vault has no runs at all"),
                false => failure
                    .because(format!("the vault has {}", known.join(", ")))
                    .remedy("`sparesite-restore runs` tells more of them"),
            })
        }
    }
}

impl Found {
    pub fn run(&self) -> Result<&Run, Failure> {
        self.run.as_ref().map_err(|why| {
            Failure::failed(format!("cannot read the record of run {}", self.id))
                .because(why.clone())
                .remedy("use the version of the program that began it")
        })
    }

    /// Whether it failed this VM over and still has it; also where not all of its record can be read.
    pub fn has(&self, vm: &str) -> bool {
        let Some(Event::Begun { kind, points, .. }) =
            self.entries.first().map(|entry| &entry.event)
        else {
            return false;
        };
        let over = self.run.as_ref().is_ok_and(Run::is_undone);
        *kind == RunKind::Failover && !over && points.contains_key(vm)
    }

    pub fn is_open_test(&self) -> bool {
        self.kind() == RunKind::Test && self.run.as_ref().is_ok_and(|run| !is_over(run))
    }

    pub fn is_committed(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.event == Event::Committed {})
    }

    /// As its first entry says, also where the rest cannot be read.
    pub fn kind(&self) -> RunKind {
        match self.entries.first().map(|entry| &entry.event) {
            Some(Event::Begun { kind, .. }) => *kind,
            _ => RunKind::Failover,
        }
    }
}

/// When the cloud tears a test down; `asked` is when it shall, where that is not settled yet.
pub fn deadline(run: &Run, asked: Option<Timestamp>) -> Option<Timestamp> {
    let place = run
        .steps
        .iter()
        .position(|step| step.kind == StepKind::Deadline)?;
    match &run.states[place] {
        StepState::Done(made) => made.get("at")?.parse().ok(),
        StepState::Skipped(_) | StepState::Undone => None,
        _ => run.notes[place]
            .get("at")
            .and_then(|at| at.parse().ok())
            .or(asked),
    }
}

/// Whether a test's time is over, or nearly: nothing more is made of it.
pub fn is_past(run: &Run, now: Timestamp) -> bool {
    run.phase == Phase::Forward && stops_at(run, None).is_some_and(|at| at <= now)
}

/// A little before its deadline.
pub fn stops_at(run: &Run, asked: Option<Timestamp>) -> Option<Timestamp> {
    deadline(run, asked)?.checked_sub(BEFORE_DEADLINE).ok()
}

/// Whether nothing of it is left to do: accepted, or taken away.
pub fn is_over(run: &Run) -> bool {
    run.phase == Phase::Committed || run.is_undone()
}

/// In a word or two.
pub fn state(run: &Run) -> &'static str {
    let failed = run
        .states
        .iter()
        .any(|state| matches!(state, StepState::Failed(_)));
    match run.phase {
        Phase::Committed => "committed",
        Phase::Undoing if run.is_undone() => "undone",
        Phase::Undoing => "being undone",
        Phase::Forward if is_past(run, Timestamp::now()) => "over",
        Phase::Forward if run.is_complete() => "up",
        Phase::Forward if failed => "failed in part",
        Phase::Forward => "unfinished",
    }
}
