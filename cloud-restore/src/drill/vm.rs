//! The drill of one VM: judged, booted from the vault and cut off from every network, watched, asked, photographed, ended.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use console::Failure;
use guest_inspection::judge::{Judgement, Target, Verdict};
use jiff::Timestamp;
use serde_json::json;
use vault_store::objects::Meter;
use vault_store::read::{Point, Vault};

use super::probe;
use super::report::publish::Pictures;
use super::report::{
    self, Boot, DrilledPoint, FileHash, Level, Preflight, PreflightFinding, Sign, VmDrill,
};
use super::settings::{self, VmSettings};
use super::sign::{self, Wanted};
use crate::command::boot::{BusArg, FirmwareArg};
use crate::guest;
use crate::hardware::{Architecture, Hardware};
use crate::machine::{Choices, Console, Local, Network, Plan, Qmp, Running, how, plan};
use crate::served::{CacheArgs, Opened, Writes, open_disks};

/// Until a sign of life. Emulated, a large guest takes half an hour.
const WAIT_KVM: Duration = Duration::from_secs(15 * 60);
const WAIT_EMULATED: Duration = Duration::from_secs(60 * 60);
/// Until it has shut down in order; then it is switched off.
const SHUTDOWN_KVM: Duration = Duration::from_secs(120);
const SHUTDOWN_EMULATED: Duration = Duration::from_secs(300);
/// The picture is taken when the screen has caught up with the sign.
const BEFORE_PICTURE: Duration = Duration::from_secs(3);

/// What all VMs of a drill share.
pub struct Drill<'a> {
    pub vault: &'a Vault,
    pub meter: &'a Meter,
    pub cache: &'a CacheArgs,
    /// Whether a VM's disks stay open, with what judging fetched of them, until it is booted.
    pub keeps_open: bool,
    pub started_at: Timestamp,
    /// Use KVM or not; else what a try shows.
    pub kvm: Option<bool>,
    /// For consoles and pictures, until they are in the report.
    pub folder: &'a Path,
}

/// A VM that was judged, and is ready to be booted.
pub struct Judged {
    pub settings: VmSettings,
    pub result: VmDrill,
    point: Point,
    /// None: to be opened again.
    disks: Option<Vec<Opened>>,
    plan: Plan,
    local: Local,
    ports: BTreeMap<u16, u16>,
}

/// A VM that could not even be judged.
pub fn failed(settings: &VmSettings, point: Option<DrilledPoint>, why: &Failure) -> VmDrill {
    VmDrill {
        vm: settings.name.clone(),
        point,
        rpo_target_seconds: settings.rpo.map(|target| target.seconds()),
        rto_target_seconds: settings.rto.map(|target| target.seconds()),
        measured_rto_seconds: None,
        level: Level::None,
        passed: false,
        preflight: None,
        boot: None,
        probes: Vec::new(),
        screenshot: None,
        shutdown: "it was not started".into(),
        error: Some(words(why)),
    }
}

pub fn drilled_point(point: &Point, started_at: Timestamp) -> DrilledPoint {
    let facts = &point.manifest.facts;
    let captured = facts.captured_at.parse::<Timestamp>().ok();
    DrilledPoint {
        sequence: facts.point.sequence,
        id: facts.point.to_string(),
        captured_at: facts.captured_at.clone(),
        consistency: facts.consistency,
        age_seconds: captured.map(|at| started_at.duration_since(at).as_secs()),
    }
}

impl Judged {
    pub fn accelerator(&self) -> String {
        if self.local.kvm { "kvm" } else { "tcg" }.to_owned()
    }
}

/// A failure with its causes, on one line.
fn words(failure: &Failure) -> String {
    let mut words = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(inner) = cause {
        words += &format!(": {inner}");
        cause = inner.source();
    }
    words
}

impl Drill<'_> {
    async fn open(&self, point: &Point, plan: &Plan) -> Result<Vec<Opened>, Failure> {
        let names: Vec<&str> = plan.disks.iter().map(|disk| disk.name.as_str()).collect();
        open_disks(self.vault, point, &names, self.cache, &Writes::ThrownAway).await
    }

    /// Opens the disks and judges the guest; nothing is started.
    pub async fn judge(&self, settings: VmSettings, point: Point) -> Result<Judged, Failure> {
        let hardware = Hardware::of(&point.manifest);
        let architecture = hardware.architecture.unwrap_or(Architecture::X86_64);
        let local = Local::ask(architecture, self.kvm)?;
        let ports = ports(&settings)?;
        let mut choices = Choices {
            cpus: settings.cpus,
            uefi: settings.firmware.map(|f| matches!(f, FirmwareArg::Uefi)),
            bus: settings.disk_bus.map(BusArg::bus),
            memory_bytes: settings.memory.map(console::units::Bytes::get),
            network: Network::Isolated {
                forwards: ports.iter().map(|(there, here)| (*here, *there)).collect(),
            },
            ..Choices::default()
        };
        let mut planned = plan(&hardware, &choices, &local);
        let disks = self.open(&point, &planned).await?;
        let excluded = |opened: &&Opened| {
            let disk = hardware.disks.iter().find(|disk| disk.name == opened.name);
            disk.is_some_and(|disk| disk.excluded)
        };
        let looked_at: Vec<Opened> = disks
            .iter()
            .filter(|opened| !excluded(opened))
            .cloned()
            .collect();
        let facts = guest::inspect(guest::machine(&settings.name, &hardware), &looked_at).await?;
        let judgement = guest_inspection::judge(&facts, Target::Qemu);
        if choices.uefi.is_none() && hardware.firmware.is_none() {
            // A list of disks does not tell; what lies on them does.
            choices.uefi = Some(facts.boots_by_uefi());
            planned = plan(&hardware, &choices, &local);
        }
        let read_bytes = disks
            .iter()
            .map(|opened| opened.disk.usage().read_bytes)
            .sum();
        let passes = judgement.verdict == Verdict::Boots;
        let result = VmDrill {
            point: Some(drilled_point(&point, self.started_at)),
            level: if passes {
                Level::Preflight
            } else {
                Level::None
            },
            preflight: Some(preflight(&judgement, read_bytes)),
            error: None,
            ..failed(&settings, None, &Failure::failed(""))
        };
        Ok(Judged {
            settings,
            result,
            point,
            disks: self.keeps_open.then_some(disks),
            plan: planned,
            local,
            ports,
        })
    }

    /// Boots what was judged; whatever happens is in the result.
    pub async fn boot(&self, judged: Judged, place: usize, pictures: &mut Pictures) -> VmDrill {
        let Judged {
            settings,
            mut result,
            point,
            disks,
            plan,
            local,
            ports,
        } = judged;
        let serial = self.folder.join(format!("{place}.serial"));
        let picture = self.folder.join(format!("{place}.png"));
        let before = self.meter.snapshot();
        let opened = match disks {
            Some(disks) => Ok(disks),
            None => self.open(&point, &plan).await,
        };
        let disks = match opened {
            Ok(disks) => disks,
            Err(failure) => {
                result.error = Some(words(&failure));
                return result;
            }
        };
        let read_before: u64 = disks
            .iter()
            .map(|opened| opened.disk.usage().read_bytes)
            .sum();
        let console = Console::File(serial.clone());
        let mut running = match Running::start(&plan, &local, &disks, &console, None).await {
            Ok(running) => running,
            Err(failure) => {
                result.error = Some(words(&failure));
                return result;
            }
        };
        let (most, shutdown) = match local.kvm {
            true => (WAIT_KVM, SHUTDOWN_KVM),
            false => (WAIT_EMULATED, SHUTDOWN_EMULATED),
        };
        let wanted = Wanted {
            still_screen: settings.still_screen,
            ports: &ports,
        };
        let until = running.started + settings::wait(settings.wait, most);
        let sign = sign::wait(&mut running, &serial, wanted, until, &picture).await;
        let seconds = running.started.elapsed();
        if sign.is_some() {
            result.level = Level::Booted;
            for asked in &settings.probes {
                let probe = probe::ask(asked, &ports, &running).await;
                result.probes.push(probe);
            }
            tokio::time::sleep(BEFORE_PICTURE).await;
        }
        let held = result.probes.iter().all(|probe| probe.passed);
        let foreseen = result
            .preflight
            .as_ref()
            .is_some_and(|p| p.verdict == Verdict::Boots);
        // A boot menu and a kernel's last words stand still too.
        let counts = sign != Some(Sign::StillScreen) || foreseen || !result.probes.is_empty();
        let ended = running.has_ended();
        let failures: u64 = disks.iter().map(|o| o.disk.usage().failures).sum();
        result.error = match (sign, ended) {
            (_, Some(status)) => Some(format!("QEMU ended by itself, with {}", how(status))),
            (None, None) => Some(format!(
                "no sign of life was seen within {}",
                console::show::duration(seconds)
            )),
            (Some(_), None) if failures > 0 => Some(format!(
                "{failures} requests of the guest failed: the vault or the overlay could not serve them"
            )),
            (Some(_), None) if !counts => {
                Some("its screen stood still, and nothing else says that it came up".into())
            }
            (Some(_), None) => None,
        };
        if held && result.error.is_none() {
            result.passed = true;
            let all = running.started.elapsed().saturating_sub(BEFORE_PICTURE);
            result.measured_rto_seconds = Some(
                if result.probes.is_empty() {
                    seconds
                } else {
                    all
                }
                .as_secs(),
            );
            if !result.probes.is_empty() {
                result.level = Level::Probed;
            }
        }
        // A QEMU that is gone has no screen, and its monitor would be waited for in vain.
        let screen = match ended {
            None => running.screenshot(&picture).await,
            Some(_) => None,
        };
        if let Some(png) = screen {
            let file = report::screenshot_name(self.started_at, place, &settings.name);
            result.screenshot = Some(FileHash {
                file: file.clone(),
                sha256: report::sha256(&png),
            });
            pictures.insert(file, png);
        }
        result.shutdown = match sign {
            Some(_) => shut_down(&mut running, shutdown).await,
            None => "it was switched off".into(),
        };
        running.end().await;
        let usage = |of: fn(&crate::served::Usage) -> u64| {
            disks
                .iter()
                .map(|opened| of(&opened.disk.usage()))
                .sum::<u64>()
        };
        result.boot = Some(Boot {
            machine_notes: plan.notes.clone(),
            seconds_to_sign: sign.map(|_| seconds.as_secs_f64()),
            sign,
            serial_tail: report::serial::last_lines(&sign::tail(&serial)),
            read_bytes: usage(|usage| usage.read_bytes) - read_before,
            written_bytes: usage(|usage| usage.written_bytes),
            fetched_bytes: (self.meter.snapshot() - before).bytes_received,
        });
        result
    }
}

/// A free port of this machine for each of the guest's that a probe needs.
fn ports(settings: &VmSettings) -> Result<BTreeMap<u16, u16>, Failure> {
    let mut ports = BTreeMap::new();
    for there in settings
        .probes
        .iter()
        .flat_map(super::settings::ProbeSettings::all_ports)
    {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let free =
            free.map_err(|e| Failure::failed("no port of this machine is free").because(e))?;
        ports.entry(there).or_insert(free.port());
    }
    Ok(ports)
}

/// By the agent, else by the power button; the words say how it went.
async fn shut_down(running: &mut Running, most: Duration) -> String {
    let started = Instant::now();
    if let Ok(mut agent) = Qmp::agent(running.guest_agent(), Duration::from_secs(3)).await {
        // It does not answer to that.
        let _ = agent.send(&json!({"execute": "guest-shutdown"})).await;
    } else if let Ok(mut monitor) = running.monitor().await {
        let _ = monitor.command("system_powerdown", json!({})).await;
    }
    match tokio::time::timeout(most, running.ended()).await {
        Ok(Ok(status)) if status.success() => format!(
            "it shut down in {}",
            console::show::duration(started.elapsed())
        ),
        Ok(Ok(status)) => format!("QEMU ended with {}", how(status)),
        Ok(Err(failure)) => words(&failure),
        Err(_) => format!(
            "it did not shut down within {}, and was switched off",
            console::show::duration(most)
        ),
    }
}

fn preflight(judgement: &Judgement, read_bytes: u64) -> Preflight {
    let finding = |finding: &guest_inspection::judge::Finding| PreflightFinding {
        code: finding.code.to_owned(),
        severity: finding.severity,
        what: finding.what.clone(),
        why: finding.why.clone(),
        remedy: finding.remedy.clone(),
    };
    Preflight {
        verdict: judgement.verdict,
        findings: judgement.findings.iter().map(finding).collect(),
        read_bytes,
    }
}
