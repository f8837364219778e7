use super::*;
use proptest::prelude::*;

use crate::PlanError;

/// Text of a VM; `more` may set anew what it has by default.
pub fn vm(name: &str, group: &str, more: &str) -> String {
    let defaults = [
        ("group", format!("{group:?}")),
        ("instance", "[\"t3.medium\"]".to_owned()),
        ("subnet", "[\"servers\"]".to_owned()),
    ];
    let mut text = format!("[[vm]]\nname = {name:?}\n");
    for (key, value) in defaults {
        if !more
            .lines()
            .any(|line| line.starts_with(&format!("{key} =")))
        {
            text += &format!("{key} = {value}\n");
        }
    }
    format!("{text}{more}\n")
}

pub const HEAD: &str = r#"
name = "whole-site"
cloud = "aws"
region = "eu-central-1"
[[subnet]]
name = "servers"
id = "subnet-1"
range = "10.20.0.0/24"
zone = "eu-central-1a"
[[subnet]]
name = "second"
id = "subnet-2"
range = "10.20.1.0/24"
zone = "eu-central-1b"
[[group]]
name = "directory"
delay = "1m"
[[group]]
name = "servers"
"#;

fn read(more: &str) -> Result<Plan, PlanError> {
    let first = vm(
        "dc01",
        "directory",
        "domain_controller = true\nsite_address = \"10.1.0.5\"\n[[vm.probe]]\nldap = \"\"",
    );
    Plan::parse(&format!("{HEAD}{first}{more}"))
}

/// Two subnets, two groups, a domain controller in the first, and more.
pub fn plan(more: &str) -> Plan {
    read(more).unwrap_or_else(|error| panic!("{error}"))
}

/// A VM with everything that one can have.
const WHOLE: &str = r#"needs = ["dc01"]
point = 2026-11-22T08:00:00Z
instance = ["m6i.large", "m6a.large"]
subnet = ["servers", "second"]
security_groups = ["sg-1"]
address = "keep"
site_address = "10.20.0.9"
volume = { type = "gp3", iops = 4000, throughput = 250 }
volumes.sdb = { type = "st1" }
tags = { owner = "it" }
licence = "byol"
before = [{ command = ["/bin/true", "a b"], undo = ["/bin/false"], wait = "1m", may_fail = true, in_tests = true }]
after = [{ command = ["/bin/true"] }]
[[vm.probe]]
http = "8080/health?x=1"
wait = "5m"
[[vm.probe]]
dns = "web.example.org"
[[vm.probe]]
command = ["check", "it"]
"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// A plan in which something was changed is read or refused, and one that is read can be ordered and judged.
    #[test]
    fn whatever_was_changed_in_a_plan_is_an_error_or_a_plan(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[0-9a-z\\[\\]\"=/.,-]{0,3}", 0usize..4), 0..4),
        numbers in proptest::array::uniform3((prop_oneof![Just(u64::MAX), Just(1 << 63), any::<u64>()], any::<u64>())),
    ) {
        let mut text = format!("{HEAD}{}{}", vm("dc01", "directory", ""), vm("web", "servers", WHOLE));
        for (at, new, removed) in edits {
            let at = at.index(text.len());
            let end = (at + removed).min(text.len());
            // All of it is ASCII.
            text.replace_range(at..end, &new);
        }
        if let Ok(plan) = Plan::parse(&text) {
            let started: usize = crate::starts(&plan).iter().map(|start| start.vms.len()).sum();
            prop_assert_eq!(started, plan.vms.len());
            let mut vms = [crate::judge::tests::known("web")];
            for (point, (size, memory)) in vms[0].points.iter_mut().zip(numbers) {
                let disk = point.disks[0].clone();
                point.disks.push(crate::known::KnownDisk { size_bytes: size, ..disk });
                (point.disks[0].size_bytes, point.hardware.memory_bytes) = (size, Some(memory));
            }
            crate::judge::judge(&plan, &vms, &crate::prices::Prices::aws(), jiff::Timestamp::UNIX_EPOCH);
        }
    }
}

#[test]
fn everything_that_can_be_written_is_read() {
    let plan = plan(&vm("web", "servers", WHOLE));
    let web = &plan.vms[1];
    assert_eq!(web.address, AddressRule::Keep);
    assert_eq!(web.volumes["sdb"].kind, VolumeType::St1);
    assert_eq!(
        web.probes[0].kind(),
        Ok(ProbeKind::Http {
            port: 8080,
            path: "/health?x=1"
        })
    );
    assert_eq!(web.probes[1].to_string(), "DNS web.example.org");
    assert_eq!(web.before[0].command[1], "a b");
    assert_eq!(plan.groups[0].delay.unwrap().seconds(), 60);
    assert_eq!(plan.vms[0].probes[0].kind(), Ok(ProbeKind::Ldap("")));
}

#[test]
fn what_does_not_hold_together_is_named() {
    let web = |more: &str| vm("web", "servers", more);
    for (more, expected) in [
        (web("colour = 1"), "unknown field `colour`"),
        (web("point = \"newest\""), "a point rule is `latest`"),
        (web("address = \"auto\""), "an address rule is"),
        (web("licence = \"free\""), "unknown variant `free`"),
        (web("group = \"serv\""), "no group \"serv\""),
        (web("needs = [\"dc02\"]"), "no VM \"dc02\""),
        (web("needs = [\"web\"]"), "wait for each other"),
        (web("needs = [\"b\"]") + &vm("b", "servers", "needs = [\"web\"]"), "none of them would start: web, b"),
        (vm("b", "directory", "needs = [\"web\"]") + &web(""), "put group \"servers\" before \"directory\""),
        (web("instance = []"), "`instance` is empty"),
        (web("subnet = [\"x\"]"), "no subnet \"x\""),
        (web("donor = \"ami-1\""), "`licence = \"included\"` only"),
        (web("licence = \"included\"\ndonor = \"Windows\""), "is no image"),
        (web("address = \"keep\""), "`site_address` is not written"),
        (web("address = \"keep\"\nsite_address = \"192.168.1.9\""), "not in 10.20.0.0/24"),
        (web("address = \"10.20.0.2\""), "AWS keeps for itself"),
        (web("address = \"10.20.0.9\"") + &vm("b", "servers", "address = \"10.20.0.9\""), "gets 10.20.0.9 in subnet \"servers\" too"),
        (web("volume = { type = \"gp2\", iops = 4000 }"), "gp3 and io2"),
        (web("volume = { type = \"io2\" }"), "needs `iops`"),
        (web("volume = { iops = 100 }"), "3000 to 80000"),
        (web("volume = { throughput = 3000 }"), "125 to 2000"),
        (web("volumes.sdb = { type = \"st1\", throughput = 200 }"), "disk \"sdb\""),
        (web("tags = { \"aws:x\" = \"1\" }"), "tag \"aws:x\""),
        (web("before = [{ command = [] }]"), "a hook has no command"),
        (web("[[vm.probe]]\ntcp = 0"), "1 to 65535"),
        (web("[[vm.probe]]\ntcp = 1\ndns = \"x\""), "asks one thing"),
        (web("[[vm.probe]]\nhttp = \"x/y\""), "no port with a path"),
        (web("") + &vm("web", "servers", ""), "a second VM \"web\""),
        (web("instance = [\"a.b\", \"a.b\"]"), "names \"a.b\" twice"),
        (web("security_groups = [\"\"]"), "an empty name"),
        (web("volume = { throughput = 1000 }"), "needs `iops = 4000`"),
        (web("[[vm.probe]]\nhttp = \"80/a b\""), "no port with a path"),
        (web("[[vm.probe]]\nhttp = \"+80/\""), "no port with a path"),
        (web("[[vm.probe]]\ncommand = [\"\"]"), "it has no words"),
        (web("point = 2026-11-22"), "a point rule is `latest`"),
        (web("tags = { \"AWS:x\" = \"1\" }"), "tag \"AWS:x\""),
        (
            web("subnet = [\"second\"]\naddress = \"10.20.1.9\"")
                + "[[map]]\nsite = \"192.168.10.0/24\"\nsubnet = \"servers\"\n[[map]]\nsite = \"192.168.10.0/24\"\nsubnet = \"second\"\n"
                + &vm("b", "servers", "subnet = [\"servers\", \"second\"]\naddress = \"map\"\nsite_address = \"192.168.10.9\""),
            "gets 10.20.1.9 in subnet \"second\" too",
        ),
        (
            "[[subnet]]\nname = \"c\"\nid = \"s\"\nrange = \"10.0.0.0/24\"\nzone = \"us-east-1a\"".into(),
            "is not of region",
        ),
        (vm("a/b", "servers", ""), "no name for a VM"),
        ("[[map]]\nsite = \"192.168.10.0/24\"\nsubnet = \"x\"".into(), "no subnet \"x\""),
        ("[[map]]\nsite = \"192.168.0.0/16\"\nsubnet = \"servers\"".into(), "fewer addresses"),
        ("[[map]]\nsite = \"192.168.10.7/24\"\nsubnet = \"servers\"".into(), "write 192.168.10.0/24"),
        (
            "[[map]]\nsite = \"192.168.10.0/25\"\nsubnet = \"servers\"\n[[map]]\nsite = \"192.168.10.0/24\"\nsubnet = \"servers\"".into(),
            "another map of its addresses",
        ),
        ("[[subnet]]\nname = \"c\"\nid = \"s\"\nrange = \"10.0.0.0/8\"\nzone = \"eu-central-1a\"".into(), "/16 to /28"),
        ("[[subnet]]\nname = \"c\"\nid = \"s\"\nrange = \"10.0.0.9/24\"\nzone = \"eu-central-1a\"".into(), "write 10.0.0.0/24"),
        ("[[group]]\nname = \"servers\"".into(), "a second group"),
    ] {
        let error = read(&more).map(|_| ()).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{more}: {error}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = read(&(vm("a b", "x", "instance = []") + &vm("c", "servers", "needs = [\"d\"]")))
        .unwrap_err();
    assert_eq!(error.problems().len(), 4, "{error}");
}

#[test]
fn hostile_text_is_an_error_and_no_panic() {
    for text in [
        "",
        "name = 1",
        "[[vm]]",
        "name = \"",
        "\u{0}",
        "[[subnet]]\nrange = \"1.2.3.4/33\"",
    ] {
        assert!(Plan::parse(text).is_err(), "{text:?}");
    }
}
