//! The job's script against a stand-in for virsh that says what it was asked: freeze and thaw, whatever happens.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::{
    Domain, LibvirtError,
    job::{Job, Order},
    plan::Documents,
};
use crate::source::{
    host::{Host, Ssh},
    qemu::checkpoint::GuestFreeze,
};

struct StandIn {
    folder: TempDir,
    domain: Domain,
}

fn script(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    path
}

impl StandIn {
    /// `answers` is the body of a `case` over virsh's command.
    fn new(answers: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().display().to_string();
        let virsh = format!(
            "cd {home}; for word; do case $word in -q|-c|standing-in) ;; *) break ;; esac; shift; done\n\
             echo \"$1\" >>asked\n\
             case $1 in\n{answers}\n\
             guestinfo) echo 'os.id               : debian' ;;\n\
             domfsfreeze) echo 'Froze 2 filesystem(s)' ;;\n\
             domfsthaw) echo 'Thawed 2 filesystem(s)' ;;\n\
             backup-begin) touch begun ;;\n\
             backup-dumpxml) [ -e begun ] && echo /socket ;;\n\
             domjobabort) rm -f begun ;;\n\
             domjobinfo) [ -e begun ] && echo 'operation: 9' && echo 'disk_temp_used: 1' || echo 'Job type: 0' ;;\n\
             esac"
        );
        script(folder.path().join("virsh"), &virsh);
        // A way to the host on which this virsh comes first.
        let way = format!(
            "while [ \"$1\" != -- ]; do shift; done; shift 2; PATH={home}:$PATH exec sh -c \"$*\""
        );
        let program = script(folder.path().join("ssh"), &way);
        let mut ssh = Ssh::new("kvm1", "kvm1");
        ssh.program = program;
        StandIn {
            domain: Domain {
                host: Host::Ssh(ssh),
                uri: "standing-in".into(),
                name: "dc01".into(),
            },
            folder,
        }
    }

    async fn begin(&self) -> Result<Job, LibvirtError> {
        let documents = Documents {
            backup: "<domainbackup/>".into(),
            checkpoint: None,
        };
        let files = self.folder.path().join("sparesite~").display().to_string();
        let order = Order {
            freeze: true,
            most_bytes: 1 << 20,
            socket: "/socket".as_ref(),
            files: &files,
            documents: &documents,
        };
        Job::begin(&self.domain, order).await
    }

    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
        let interesting = [
            "domfsfreeze",
            "backup-begin",
            "domfsthaw",
            "late",
            "domjobabort",
        ];
        let lines = asked.lines().filter(|line| interesting.contains(line));
        lines.map(str::to_owned).collect()
    }

    async fn until_asked(&self, command: &str) {
        for _ in 0..1000 {
            if self.asked().iter().any(|asked| asked == command) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{command} never came: {:?}", self.asked());
    }
}

#[tokio::test]
async fn a_guest_is_frozen_for_the_beginning_only() {
    let virsh = StandIn::new("");
    let job = virsh.begin().await.expect("begun");
    let GuestFreeze::Done {
        file_systems,
        system,
        window,
        ..
    } = &job.freeze
    else {
        panic!("{:?}", job.freeze);
    };
    assert_eq!((*file_systems, &*system.id), (2, "debian"));
    assert!(*window > Duration::ZERO && *window < Duration::from_secs(60));
    assert_eq!(virsh.asked(), ["domfsfreeze", "backup-begin", "domfsthaw"]);
    let ended = job.end().await;
    assert!(!ended.left && !ended.full, "{ended:?}");
    assert_eq!(
        virsh.asked().last().map(String::as_str),
        Some("domjobabort")
    );
}

#[tokio::test]
async fn a_guest_is_thawed_where_the_job_does_not_begin_or_the_freeze_failed_halfway() {
    let virsh = StandIn::new("backup-begin) echo 'no space'; exit 1 ;;");
    let error = virsh.begin().await.expect_err("not begun");
    assert!(error.to_string().ends_with("no space"), "{error}");
    assert_eq!(virsh.asked(), ["domfsfreeze", "backup-begin", "domfsthaw"]);

    let virsh = StandIn::new("domfsfreeze) echo 'no agent'; exit 1 ;;");
    let job = virsh.begin().await.expect("begun");
    assert_eq!(job.freeze, GuestFreeze::Failed("no agent".into()));
    assert_eq!(virsh.asked(), ["domfsfreeze", "backup-begin", "domfsthaw"]);
}

#[tokio::test]
async fn a_thaw_is_tried_again_and_goes_on_without_us() {
    let answers = "domfsthaw) [ -e second ] || { touch second; exit 1; }; echo Thawed 1 ;;";
    let virsh = StandIn::new(answers);
    let job = virsh.begin().await.expect("begun");
    assert!(
        matches!(job.freeze, GuestFreeze::Done { .. }),
        "{:?}",
        job.freeze
    );
    drop(job);
    virsh.until_asked("domjobabort").await;

    // Gone while the guest is frozen and the job begins.
    let virsh = StandIn::new("backup-begin) sleep 1; touch begun ;;");
    let begins = virsh.begin();
    tokio::select! {
        _ = begins => panic!("it takes a second"),
        () = virsh.until_asked("backup-begin") => {}
    }
    virsh.until_asked("domfsthaw").await;
    virsh.until_asked("domjobabort").await;
}

/// virsh is ended after 10 s; what it asked for comes all the same.
#[tokio::test]
async fn a_job_that_begins_late_is_ended_and_its_guest_has_thawed_long_before() {
    let answers = "backup-begin) setsid sh -c 'sleep 12; echo late >>asked; touch begun' >/dev/null 2>&1 & sleep 60 ;;";
    let virsh = StandIn::new(answers);
    let error = virsh.begin().await.expect_err("not begun");
    assert!(error.to_string().contains("within 10 s"), "{error}");
    assert_eq!(virsh.asked(), ["domfsfreeze", "backup-begin", "domfsthaw"]);
    virsh.until_asked("domjobabort").await;
    let all = [
        "domfsfreeze",
        "backup-begin",
        "domfsthaw",
        "late",
        "domjobabort",
    ];
    assert_eq!(virsh.asked()[..5], all);
}

/// What the guest writes while its agent hangs goes to the scratch.
#[tokio::test]
async fn a_job_is_watched_before_the_guest_has_thawed() {
    let answers = "domfsthaw) until [ -e aborted ]; do sleep 0.1; done; echo 'Thawed 2 filesystem(s)' ;;\n\
                   domjobinfo) [ -e begun ] && echo 'operation: 9' && echo 'disk_temp_used: 9999999' || echo 'Job type: 0' ;;\n\
                   domjobabort) rm -f begun; touch aborted ;;";
    let virsh = StandIn::new(answers);
    let job = timeout(Duration::from_secs(20), virsh.begin()).await;
    let job = job.expect("it is given up meanwhile").expect("begun");
    let ended = job.end().await;
    assert!(ended.full && !ended.left, "{ended:?}");
}
