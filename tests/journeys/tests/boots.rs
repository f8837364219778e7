//! `boot` of a guest that reads its whole disk and says what it read, from a store that has its troubles meanwhile.

use std::fs;
use std::time::Duration;

use journeys::*;
use testkit::{CountingProxy, ProxyFault, S3Server};

const DISK: u64 = 16 * MIB;

struct Booted {
    site: Site,
    proxy: CountingProxy,
    _server: S3Server,
    /// What the guest must say.
    right: Vec<String>,
}

impl Booted {
    fn site() -> Self {
        let server = S3Server::start();
        let proxy = CountingProxy::start(server.port());
        let site = Site::on(Where::s3_behind(&proxy, &server));
        let disk = site.path("vm.raw");
        make_random(&disk, DISK, 1);
        make_reader(&disk);
        site.configure_one();
        site.sync();
        proxy.take_counts();
        Booted {
            right: reader_says(&disk),
            site,
            proxy,
            _server: server,
        }
    }

    /// The guest switches itself off at the end.
    fn boot(&self) -> (Run, Vec<String>) {
        let serial = self.site.path("serial");
        let _ = fs::remove_file(&serial);
        let mut command = self
            .site
            .restore_command(&["boot", "vm", "--json", "--accel", "tcg"]);
        command.args(["--cache-folder", &self.site.shown(""), "--serial"]);
        let run = Run::of(command.arg(&serial));
        let said = fs::read(&serial).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        (run, said.lines().map(str::to_owned).collect())
    }

    /// As far as the guest came; what it read was right.
    #[track_caller]
    fn judge_broken_off(&self, run: &Run, said: &[String]) {
        let (last, read) = said.split_last().expect("it spoke");
        assert_eq!(last, "E", "the guest has an I/O error: {run}");
        assert_eq!(
            read,
            &self.right[..read.len()],
            "and nothing wrong before it"
        );
        assert!(!read.is_empty(), "it was under way");
        assert!(
            run.stderr.contains("disk vm@1 vm: cannot read at offset"),
            "{run}"
        );
        let found = &run.json()["findings"][0];
        assert!(
            found["on"].as_str().is_some_and(|on| on.contains("vm")),
            "{run}"
        );
        assert!(
            found["what"]
                .as_str()
                .is_some_and(|what| what.contains("I/O error")),
            "{run}"
        );
    }
}

#[test]
fn a_store_that_fails_stalls_corrupts_or_is_lost_during_a_boot() {
    if !["qemu-system-x86_64", "as", "ld"].into_iter().all(has) {
        return;
    }
    let booted = Booted::site();
    let (run, said) = booted.boot();
    run.ok();
    assert_eq!(said.len(), booted.right.len() + 1);
    let requests = booted.proxy.take_counts().requests;
    let is_pack = |line: &String| line.contains("/packs/");
    let opening = requests.iter().position(is_pack).expect("a pack is read");

    // Now and then: nobody notices.
    (0..opening).for_each(|_| booted.proxy.next(ProxyFault::Pass));
    for _ in 0..12 {
        for fault in [
            ProxyFault::Pass,
            ProxyFault::status(503, ""),
            ProxyFault::CutBody(1000),
            ProxyFault::Pass,
            ProxyFault::FlipBit,
            ProxyFault::Hang(Duration::from_millis(300)),
            ProxyFault::Pass,
            ProxyFault::status(500, ""),
        ] {
            booted.proxy.next(fault);
        }
    }
    let (run, said) = booted.boot();
    let run = run.ok();
    let (last, read) = said.split_last().expect("it spoke");
    assert_eq!(last, ".", "it came to the end of its disk: {run}");
    assert!(read == booted.right, "what it read is the disk");
    assert!(run.json()["read_bytes"].as_u64() >= Some(DISK), "{run}");
    let answers = booted.proxy.take_counts().requests;
    for status in [" 503", " 500", " 0"] {
        assert!(
            answers.iter().any(|line| line.ends_with(status)),
            "{answers:?}"
        );
    }
    booted.proxy.clear();

    // From some request on for good: an I/O error of the guest, which the operator is told of.
    for fault in [ProxyFault::status(404, ""), ProxyFault::FlipBit] {
        let most = opening + (requests.len() - opening) / 2;
        (0..most).for_each(|_| booted.proxy.next(ProxyFault::Pass));
        (0..1000).for_each(|_| booted.proxy.next(fault.clone()));
        let (run, said) = booted.boot();
        booted.judge_broken_off(&run.exits(3), &said);
        booted.proxy.clear();
    }
}
