//! Runs, found in the vault.

use console::{Failure, show};
use recovery_plan::run::{Entry, Event, Phase, Run};
use vault_format::run_record::RunName;
use vault_store::read::Runs;

use super::recorder::stored;
use crate::access::OpenVault;
use crate::failure::attempting;

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

/// All runs, the oldest of each plan first. What a stranger put there is left out.
pub async fn all(open: &OpenVault) -> Result<Vec<Found>, Failure> {
    let runs = Runs::of(&open.vault);
    let mut found = Vec::new();
    for name in runs.list().await.map_err(failed())?.into_keys() {
        found.extend(read(&runs, name).await?);
    }
    found.sort_by_key(|found| found.entries.first().map(|entry| entry.time));
    Ok(found)
}

/// The newest run of a plan.
pub async fn newest(open: &OpenVault, plan: &str) -> Result<Option<Found>, Failure> {
    let runs = Runs::of(&open.vault);
    match runs.newest(runs.plan_id(plan)).await.map_err(failed())? {
        Some((name, _)) => read(&runs, name).await,
        None => Ok(None),
    }
}

async fn read(runs: &Runs<'_>, name: RunName) -> Result<Option<Found>, Failure> {
    let (said, unread) = stored(runs.read(name).await.map_err(failed())?);
    let Some(Event::Begun { run: id, .. }) = said.first().map(|first| &first.entry.event) else {
        return Ok(None);
    };
    let run = Run::replay(&said);
    let void = run.iter().flat_map(|run| &run.void).chain(&unread);
    Ok(Some(Found {
        name,
        id: id.clone(),
        void: void
            .map(|(number, why)| format!("entry {number}: {why}"))
            .collect(),
        run: run.map_err(|error| error.to_string()),
        entries: said.into_iter().map(|stored| stored.entry).collect(),
    }))
}

/// By its id, or by the name of its plan: then the newest.
pub async fn named(open: &OpenVault, wanted: &str) -> Result<Found, Failure> {
    let mut all = all(open).await?;
    let of_plan = |found: &Found| found.run.as_ref().is_ok_and(|run| run.plan.name == wanted);
    let place = all
        .iter()
        .position(|found| found.id == wanted)
        .or_else(|| all.iter().rposition(of_plan));
    match place {
        Some(place) => Ok(all.swap_remove(place)),
        None => {
            let known: Vec<&str> = all.iter().map(|found| found.id.as_str()).collect();
            let failure = Failure::failed(format!("there is no run {:?}", show::printable(wanted)));
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
                .remedy(format!(
                    "`sparesite-restore sweep {}` takes away what it made",
                    self.id
                ))
        })
    }
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
        .any(|state| matches!(state, recovery_plan::run::StepState::Failed(_)));
    match run.phase {
        Phase::Committed => "committed",
        Phase::Undoing if run.is_undone() => "undone",
        Phase::Undoing => "being undone",
        Phase::Forward if run.is_complete() => "up",
        Phase::Forward if failed => "failed in part",
        Phase::Forward => "unfinished",
    }
}
