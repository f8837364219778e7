//! A backup job of libvirt that is held: begun, watched and ended by a script on the domain's host, which thaws the
//! guest and ends the job whatever becomes of this program or of the way to the host.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take},
    process::{Child, ChildStdin, ChildStdout},
    time::{Instant, timeout_at},
};

use super::{Domain, LibvirtError, plan::Documents};
use crate::source::{guest_agent::GuestSystem, qemu::checkpoint::GuestFreeze};

const SCRIPT: &str = include_str!("job.sh");
/// The script's own limits come first: 10 s for the system, 30 s for the freeze, 10 s for the beginning, 120 tries to
/// thaw.
const BEGIN: Duration = Duration::from_secs(200);
/// The script tries for 15 s before it says that the job is left.
const END: Duration = Duration::from_secs(30);
const MOST_WORDS: u64 = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Order<'o> {
    pub freeze: bool,
    /// The job is given up where its scratch files grow beyond.
    pub most_bytes: u64,
    /// Of the job's NBD server, on the host; by it the job is known to be ours.
    pub socket: &'o Path,
    /// What the paths of all other files of ours on the host begin with: scratch, documents.
    pub files: &'o str,
    pub documents: &'o Documents,
}

/// Dropped, it is ended by its script.
#[derive(Debug)]
pub struct Job {
    child: Child,
    notes: ChildStdin,
    said: Lines<BufReader<Take<ChildStdout>>>,
    pub freeze: GuestFreeze,
    ended: Ended,
}

/// How a job came to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// It was given up before, rather than let a guest's write fail.
    pub full: bool,
    /// It had ended by itself: the VM was stopped, or somebody ended it.
    pub gone: bool,
    /// It is not proved that it ended.
    pub left: bool,
}

impl Ended {
    /// What the script tells of the job, also before it says that it begun.
    fn note(&mut self, word: &str) {
        match word {
            "full" => self.full = true,
            "gone" => self.gone = true,
            "left" => self.left = true,
            _ => {}
        }
    }
}

impl Job {
    pub async fn begin(domain: &Domain, order: Order<'_>) -> Result<Job, LibvirtError> {
        let socket = order.socket.display().to_string();
        let freeze = if order.freeze { "yes" } else { "no" };
        let most = order.most_bytes.to_string();
        let checkpoint = order.documents.checkpoint.as_deref().unwrap_or_default();
        let arguments = [
            "-c",
            SCRIPT,
            "sh",
            &domain.uri,
            &domain.name,
            freeze,
            &most,
            &socket,
            order.files,
            &order.documents.backup,
            checkpoint,
        ];
        let mut child = domain
            .host
            .start("sh", &arguments)
            .map_err(LibvirtError::Host)?;
        let (Some(notes), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(LibvirtError::NotBegun("it has no pipes".into()));
        };
        let mut job = Job {
            child,
            notes,
            said: BufReader::new(said.take(MOST_WORDS)).lines(),
            freeze: GuestFreeze::NotAsked,
            ended: Ended::default(),
        };
        job.listen_until_begun().await?;
        Ok(job)
    }

    async fn listen_until_begun(&mut self) -> Result<(), LibvirtError> {
        let until = Instant::now() + BEGIN;
        let mut system = GuestSystem::default();
        loop {
            let line = timeout_at(until, self.said.next_line()).await;
            let line = match line {
                Ok(Ok(Some(line))) => line,
                Ok(_) => return Err(LibvirtError::NotBegun("the way to the host ended".into())),
                Err(_) => {
                    return Err(LibvirtError::NotBegun(format!(
                        "no answer within {BEGIN:?}"
                    )));
                }
            };
            let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            match word {
                "os" => rest.trim().clone_into(&mut system.id),
                "unfrozen" => self.freeze = GuestFreeze::Failed(rest.to_owned()),
                "thawed" if self.freeze == GuestFreeze::NotAsked => {
                    self.freeze = thawed(rest, system.clone());
                }
                "stuck" => {
                    let why = format!("the guest may still be frozen: {rest}");
                    self.freeze = GuestFreeze::Failed(why);
                }
                "failed" => return Err(LibvirtError::NotBegun(rest.to_owned())),
                "begun" => return Ok(()),
                word => self.ended.note(word),
            }
        }
    }

    pub async fn end(mut self) -> Ended {
        // Where this fails the script is at its end already, or comes to it with our pipe.
        let _ = self.notes.write_all(b"end\n").await;
        let _ = self.notes.shutdown().await;
        let until = Instant::now() + END;
        while !self.ended.left {
            let line = timeout_at(until, self.said.next_line()).await;
            let Ok(Ok(Some(line))) = line else {
                self.ended.left = true;
                break;
            };
            match line.split_whitespace().next() {
                Some("ended") => {
                    let _ = timeout_at(until, self.child.wait()).await;
                    break;
                }
                word => self.ended.note(word.unwrap_or_default()),
            }
        }
        self.ended
    }
}

/// `NANOSECONDS Thawed N filesystem(s)`
fn thawed(words: &str, system: GuestSystem) -> GuestFreeze {
    let mut words = words.split_whitespace();
    let window = words.next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    match words.find_map(|word| word.parse::<u64>().ok()) {
        Some(0) => GuestFreeze::Failed(
            "the guest had thawed by itself before the disks were frozen".into(),
        ),
        Some(file_systems) => GuestFreeze::Done {
            file_systems,
            system,
            window: Duration::from_nanos(window),
            // virsh tells the freeze and the rest as one.
            quiesced: Duration::from_nanos(window),
        },
        None => GuestFreeze::Failed("libvirt does not say what was thawed".into()),
    }
}
