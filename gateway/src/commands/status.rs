//! `status`: what the state folder knows of each VM's newest recovery point. No network.

use std::{collections::HashMap, path::Path};

use console::{Exit, Failure, Finding, show, table::Table, units::Duration};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::manifest::Consistency;
use vault_store::{
    gateway::{OutboxUse, VmStatus},
    objects::{Meter, in_memory},
};

use super::told;
use crate::{
    config::{Config, Vm},
    fenced::Fenced,
    proofs::Proofs,
    run::{LiveStatus, LiveVm, Presence, presence},
    vault_access::{load_config, open_gateway},
};

pub const EXAMPLES: &str = "\
Achieved RPO is the age of the newest recovery point. A missed RPO target, a VM that was never
synced, a consistency lower than the policy asks, a failed last drill and a VM that was failed over
are findings (exit code 3).
PROOF is what the last drill showed, and how long ago.

Examples:
  sparesite-gateway status
  sparesite-gateway status --json | jq '.vms[] | select(.rpo_met | not)'";

/// What is known of one VM.
#[derive(Debug, Serialize)]
struct Standing {
    vm: String,
    policy: String,
    rpo_target_seconds: u64,
    /// `null`: never synced, or unknown.
    rpo_met: bool,
    achieved_rpo_seconds: Option<u64>,
    sequence: Option<u64>,
    id: Option<String>,
    captured_at: Option<String>,
    consistency_asked: Consistency,
    consistency: Option<String>,
    #[serde(flatten)]
    proofs: Proofs,
    /// `null`: it was not failed over.
    fence: Option<Fenced>,
    /// Points that wait for the uplink.
    queued: u64,
    #[serde(skip)]
    findings: Vec<Finding>,
}

pub fn run(config: &Path, json: bool) -> anyhow::Result<Exit> {
    let config = load_config(config)?;
    let (live, _no_daemon_begins) = match presence(&config.state) {
        Presence::Here(None) => {
            return Err(Failure::failed("`run` has only just begun")
                .remedy("ask again in a few seconds")
                .into());
        }
        Presence::Here(Some(live)) => (Some(live), None),
        Presence::Away(lock) => (None, lock),
    };
    let seen = match &live {
        Some(live) => of_daemon(live),
        None => {
            // Nothing is asked of the vault, so none is opened.
            let gateway = open_gateway(&config, in_memory(Meter::new()))?;
            let mut seen = of_state(gateway.status()?, gateway.outbox_use()?);
            for vm in &config.vms {
                let fence = gateway.fence(&vm.name)?;
                let fence = fence.map(|fence| (vm.name.clone(), fence.into()));
                seen.fences.extend(fence);
            }
            seen
        }
    };
    let now = Timestamp::now();
    let vms = config.vms_by_priority().into_iter();
    let standings: Vec<_> = vms
        .map(|vm| standing(&config, vm, &seen, now, live.is_some()))
        .collect();
    let mut findings: Vec<_> = standings.iter().flat_map(|s| s.findings.clone()).collect();
    findings.extend(live.as_ref().and_then(|live| silent(live.written_at, now)));
    if json {
        console::print_json(&serde_json::json!({
            "vms": standings, "findings": findings, "queued_bytes": seen.queued_bytes, "daemon": live,
        }))?;
        return Ok(Exit::of(&findings));
    }
    table(&standings, now).print()?;
    match &live {
        Some(live) => console::print(&daemon_lines(live))?,
        None if seen.queued_bytes > 0 => console::print(&outbox_lines(&standings, &seen))?,
        None => {}
    }
    told(&findings)
}

/// What whoever knows has seen: the daemon, or we in the state.
struct Seen {
    points: Vec<KnownPoint>,
    /// By VM.
    proofs: HashMap<String, Proofs>,
    /// By VM.
    fences: HashMap<String, Fenced>,
    /// By VM.
    queued: HashMap<String, u64>,
    queued_bytes: u64,
}

/// A VM's newest published point.
struct KnownPoint {
    vm: String,
    sequence: u64,
    id: String,
    captured_at: String,
    consistency: String,
}

fn of_state(known: Vec<VmStatus>, outbox: OutboxUse) -> Seen {
    let proofs = known.iter();
    let proofs = proofs.map(|vm| (vm.name.clone(), vm.proofs.as_ref().into()));
    let proofs = proofs.collect();
    let point = |vm: VmStatus| KnownPoint {
        vm: vm.name,
        sequence: vm.point.sequence,
        id: vm.point.to_string(),
        captured_at: vm.captured_at,
        consistency: vm.consistency,
    };
    let queued = outbox.vms.into_iter().map(|(vm, waits)| (vm, waits.points));
    Seen {
        points: known.into_iter().map(point).collect(),
        proofs,
        fences: HashMap::new(),
        queued: queued.collect(),
        queued_bytes: outbox.used_bytes,
    }
}

fn of_daemon(live: &LiveStatus) -> Seen {
    let point = |vm: &LiveVm| {
        let point = vm.published.as_ref()?;
        Some(KnownPoint {
            vm: vm.name.clone(),
            sequence: point.sequence,
            id: point.id.clone(),
            captured_at: point.captured_at.to_string(),
            consistency: point.consistency.clone(),
        })
    };
    let queued = live.vms.iter();
    let queued = queued.map(|vm| (vm.name.clone(), u64::from(vm.queued)));
    Seen {
        points: live.vms.iter().filter_map(point).collect(),
        proofs: live
            .vms
            .iter()
            .map(|vm| (vm.name.clone(), vm.proofs.clone()))
            .collect(),
        fences: live
            .vms
            .iter()
            .filter_map(|vm| Some((vm.name.clone(), vm.fence.clone()?)))
            .collect(),
        queued: queued.collect(),
        queued_bytes: live.queued_bytes,
    }
}

/// The daemon writes what it knows every 30 s, and oftener.
const SILENT: i64 = 120;

fn silent(written_at: Timestamp, now: Timestamp) -> Option<Finding> {
    let age = now.duration_since(written_at).as_secs();
    (age > SILENT).then(|| {
        let age = show::duration(std::time::Duration::from_secs(age as u64));
        Finding::new(
            "what is shown is old",
            "run",
            format!("`run` lives, and has said nothing for {age}: its disk may hang, or this machine was asleep"),
            "ask again in a minute; if it stays so, `systemctl restart sparesite-gateway`",
        )
    })
}

/// What waits while no daemon sends it.
fn outbox_lines(standings: &[Standing], seen: &Seen) -> String {
    let size = show::size(seen.queued_bytes);
    let mut lines =
        format!("run is not at work; outbox: {size}, sent by the next `run` or `sync`\n");
    for vm in standings.iter().filter(|vm| vm.queued > 0) {
        lines += &format!("{}: points waiting: {}\n", vm.vm, vm.queued);
    }
    show::printable(&lines).into_owned()
}

/// What the daemon does, below the table.
fn daemon_lines(live: &LiveStatus) -> String {
    let mut lines = format!(
        "run is at work; outbox: {}, uplink: {}\n",
        show::size(live.queued_bytes),
        live.uplink
    );
    if let Some(why) = &live.upload_failure {
        lines += &format!("the last upload failed: {why}\n");
    }
    for vm in &live.vms {
        let doing = match (&vm.doing, vm.running) {
            (Some(doing), _) => Some(doing.clone()),
            (None, true) => Some("being captured".into()),
            (None, false) => None,
        };
        let queued = (vm.queued > 0).then(|| format!("points waiting: {}", vm.queued));
        let failed = vm.last_failure.as_ref();
        let failed = failed.map(|why| format!("failed {} times: {why}", vm.failures));
        let words: Vec<_> = [doing, queued, failed].into_iter().flatten().collect();
        if !words.is_empty() {
            lines += &format!("{}: {}\n", vm.name, words.join("; "));
        }
    }
    show::printable(&lines).into_owned()
}

fn standing(
    config: &Config,
    vm: &Vm,
    seen: &Seen,
    now: Timestamp,
    is_run_at_work: bool,
) -> Standing {
    let known = seen.points.iter().find(|point| point.vm == vm.name);
    let policy = config.policy_of(vm);
    let captured = known.and_then(|known| known.captured_at.parse::<Timestamp>().ok());
    let age = captured.map(|at| now.as_second() - at.as_second());
    let remedy = match is_run_at_work {
        true => format!(
            "see what came of it with `sparesite-gateway jobs {}`",
            vm.name
        ),
        false => format!("run `sparesite-gateway sync {}`", vm.name),
    };
    let rpo = judge_rpo(&vm.name, known.is_some(), age, policy.rpo_target, remedy);
    let fence = seen.fences.get(&vm.name).cloned();
    let mut findings: Vec<_> = match &fence {
        Some(fence) => vec![fence.finding(&vm.name)],
        None => rpo.iter().cloned().collect(),
    };
    findings.extend(known.and_then(|known| lower(vm, policy.consistency, &known.consistency)));
    let proofs = seen.proofs.get(&vm.name).cloned().unwrap_or_default();
    findings.extend(proofs.failed(&vm.name, now));
    Standing {
        vm: vm.name.clone(),
        policy: policy.name.clone(),
        rpo_target_seconds: policy.rpo_target.seconds(),
        rpo_met: rpo.is_none(),
        achieved_rpo_seconds: age.map(|age| age.max(0) as u64),
        sequence: known.map(|known| known.sequence),
        id: known.map(|known| known.id.clone()),
        captured_at: known.map(|known| known.captured_at.clone()),
        consistency_asked: policy.consistency,
        consistency: known.map(|known| known.consistency.clone()),
        proofs,
        fence,
        queued: seen.queued.get(&vm.name).copied().unwrap_or(0),
        findings,
    }
}

/// The finding about the RPO target, if it is not met. `age` is in seconds.
fn judge_rpo(
    vm: &str,
    synced: bool,
    age: Option<i64>,
    target: Duration,
    sync: String,
) -> Option<Finding> {
    let found = |what: String, why: String, remedy: String| {
        Some(Finding::new(what, format!("VM {vm}"), why, remedy))
    };
    match age {
        _ if !synced => found(
            "never synced".into(),
            "the state knows no recovery point of it".into(),
            format!("{sync}, or `rebuild` if the state is new"),
        ),
        None => found(
            "the age of its newest recovery point is unknown".into(),
            "its time cannot be read".into(),
            "run `sparesite-gateway rebuild`".into(),
        ),
        // A clock that was set back some seconds is nothing to speak of.
        Some(age) if age < -60 => found(
            "its newest recovery point is from the future".into(),
            "this machine's clock was set back, or was wrong at that sync".into(),
            "set the clock (NTP), then sync".into(),
        ),
        Some(age) if age > 0 && age as u64 > target.seconds() => {
            let age = show::duration(std::time::Duration::from_secs(age as u64));
            found(
                "RPO target missed".into(),
                format!("achieved RPO is {age}, the target is {target}"),
                sync,
            )
        }
        Some(_) => None,
    }
}

fn lower(vm: &Vm, asked: Consistency, had: &str) -> Option<Finding> {
    let all = [
        Consistency::None,
        Consistency::Crash,
        Consistency::FileSystem,
        Consistency::Application,
    ];
    let had = all.into_iter().find(|known| known.to_string() == had)?;
    (had < asked).then(|| {
        Finding::new(
            format!("consistency is {had}, {asked} was asked"),
            format!("VM {}", vm.name),
            "so says its newest recovery point",
            format!("run `sparesite-gateway check {}` to learn why", vm.name),
        )
    })
}

fn table(standings: &[Standing], now: Timestamp) -> Table {
    let mut table = Table::new([
        "VM",
        "POINT",
        "CAPTURED AT",
        "ACHIEVED RPO",
        "RPO TARGET",
        "PROOF",
        "CONSISTENCY",
        "ASKED",
    ])
    .right([1]);
    for s in standings {
        let dash = || "-".to_owned();
        let achieved = s.achieved_rpo_seconds.map(std::time::Duration::from_secs);
        let target = std::time::Duration::from_secs(s.rpo_target_seconds);
        table.row([
            s.vm.clone(),
            s.sequence.map_or_else(dash, |n| n.to_string()),
            s.captured_at.as_deref().map_or_else(dash, local),
            achieved.map_or_else(dash, show::duration),
            show::duration(target),
            s.proofs.words(now),
            s.consistency.clone().unwrap_or_else(dash),
            s.consistency_asked.to_string(),
        ]);
    }
    table
}

/// A stored time in the machine's time zone; as it is stored if it is none.
pub fn local(stored: &str) -> String {
    match stored.parse() {
        Ok(at) => show::time_local(at),
        Err(_) => stored.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rpo_target_is_met_up_to_the_second() {
        let target = "1h".parse().expect("a length of time");
        let what =
            |synced, age| judge_rpo("dc01", synced, age, target, String::new()).map(|f| f.what);
        for age in [-60, 0, 3600] {
            assert_eq!(what(true, Some(age)), None, "{age}");
        }
        for (synced, age, expected) in [
            (true, Some(3601), "RPO target missed"),
            (true, Some(i64::MAX), "RPO target missed"),
            (
                true,
                Some(-61),
                "its newest recovery point is from the future",
            ),
            (
                true,
                None,
                "the age of its newest recovery point is unknown",
            ),
            (false, None, "never synced"),
        ] {
            assert_eq!(what(synced, age).as_deref(), Some(expected));
        }
        let finding = judge_rpo("dc01", true, Some(7200), target, String::new()).expect("missed");
        assert_eq!(finding.why, "achieved RPO is 2h, the target is 1h");
    }

    #[test]
    fn what_waits_is_seen_without_a_daemon_too() {
        let mut outbox = OutboxUse {
            used_bytes: 2 << 20,
            ..OutboxUse::default()
        };
        outbox.vms.entry("dc01".into()).or_default().points = 3;
        let seen = of_state(Vec::new(), outbox);
        let text = "state = \"/s\"\n[vault]\nurl = \"s3://acme-dr\"\nkey = \"k\"\n[[policy]]\nname = \"p\"\n\
            rpo = \"1h\"\n[[vm]]\nname = \"a\"\npolicy = \"p\"\nsource.disks = [\"/d\"]\n\
            [[vm]]\nname = \"dc01\"\npolicy = \"p\"\nsource.disks = [\"/e\"]\n";
        let file = Path::new("gateway.toml");
        let config = Config::parse(text, file, file).expect("good");
        let vms = config.vms.iter();
        let standings: Vec<_> = vms
            .map(|vm| standing(&config, vm, &seen, Timestamp::UNIX_EPOCH, false))
            .collect();
        let queued: Vec<_> = standings.iter().map(|vm| vm.queued).collect();
        assert_eq!(queued, [0, 3]);
        assert_eq!(
            outbox_lines(&standings, &seen),
            "run is not at work; outbox: 2 MiB, sent by the next `run` or `sync`\ndc01: points waiting: 3\n"
        );
    }

    #[test]
    fn a_daemon_that_says_nothing_is_found() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert!(silent(at(0), at(SILENT)).is_none() && silent(at(9000), at(0)).is_none());
        let found = silent(at(0), at(7200)).expect("found");
        assert!(found.why.contains("nothing for 2h"), "{}", found.why);
    }
}
