use super::*;
use crate::judge::{judge, tests::known};
use crate::plan::tests::{plan, vm};
use crate::prices::Prices;

/// dc01 and web, of 2 vCPUs and 8 GiB each, and an account with room for them.
fn facts() -> CloudFacts {
    let subnet = |vpc: &str, range: &str, zone: &str| SubnetFacts {
        vpc: vpc.into(),
        zone: zone.into(),
        range: range.parse().ok(),
        free: 100,
    };
    let quotas = ["L-1216C47A", "L-7A658B76", "L-309BACF6"];
    let zones = ["eu-central-1a", "eu-central-1b"];
    let types = ["t3.medium", "m6i.xlarge", "x2idn.16xlarge"];
    let offered = types
        .iter()
        .flat_map(|kind| zones.map(|zone| ((*kind).into(), zone.into())));
    CloudFacts {
        vcpus: Ok(
            [("t3.medium", 2), ("m6i.xlarge", 4), ("x2idn.16xlarge", 64)]
                .map(|(kind, vcpus)| (kind.into(), vcpus))
                .into(),
        ),
        running: Ok(BTreeMap::new()),
        offered: Ok(offered.collect()),
        subnets: Ok([
            ("subnet-1", subnet("vpc-1", "10.20.0.0/24", zones[0])),
            ("subnet-9", subnet("vpc-9", "10.20.0.0/24", zones[0])),
            ("subnet-2", subnet("vpc-1", "10.20.1.0/24", zones[1])),
        ]
        .map(|(id, subnet)| (id.into(), subnet))
        .into()),
        security_groups: Ok([("sg-1".into(), "vpc-1".into())].into()),
        holders: Ok(BTreeMap::new()),
        volumes_gib: Ok(BTreeMap::new()),
        snapshots: Ok(0),
        quotas: quotas
            .into_iter()
            .zip([Ok(32.0), Ok(50.0), Ok(1000.0)])
            .collect(),
        key: None,
        rights: Ok(Vec::new()),
    }
}

/// What is found of a plan whose second VM has `more`, each as one line.
fn found(more: &str, facts: &CloudFacts) -> Vec<String> {
    let plan = planned(more);
    let rows = rows(&plan);
    let judged = judge_cloud(&plan, &rows, facts);
    let lines = judged.findings.iter().map(|finding| {
        format!(
            "{}: {}: {}; {}",
            finding.on, finding.what, finding.why, finding.remedy
        )
    });
    lines.collect()
}

/// Whose first subnet has a twin.
fn planned(more: &str) -> Plan {
    let mut plan = plan(&vm("web", "servers", more));
    plan.subnets[0].test = Some("subnet-9".into());
    plan
}

fn rows(plan: &Plan) -> Vec<Row> {
    let now = "2026-10-05T02:00:00Z".parse().unwrap();
    judge(plan, &[known("dc01"), known("web")], &Prices::aws(), now).rows
}

#[track_caller]
fn assert_one(found: &[String], parts: &[&str]) {
    assert!(
        found.len() == 1 && parts.iter().all(|part| found[0].contains(part)),
        "{parts:?}: {found:#?}"
    );
}

#[test]
fn an_account_with_room_has_no_finding_and_its_quotas_are_told() {
    assert_eq!(found("", &facts()), [] as [&str; 0]);
    let plan = planned("instance = [\"t3.medium\", \"m6i.xlarge\"]");
    let rows = rows(&plan);
    let mut facts = facts();
    facts.running = Ok([("m6i.xlarge".into(), 2), ("p9.strange".into(), 9)].into());
    facts.volumes_gib = Ok([("gp3".into(), 512), ("io1".into(), 9)].into());
    let told = judge_cloud(&plan, &rows, &facts).quotas;
    let told: Vec<_> = told
        .iter()
        .map(|row| {
            (
                row.code,
                row.used,
                row.needed,
                row.needed_at_most,
                row.quota,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("L-1216C47A", Some(8.0), 4.0, 6.0, Some(32.0)),
            ("L-309BACF6", Some(0.0), 2.0, 2.0, Some(1000.0)),
            (
                "L-7A658B76",
                Some(0.5),
                16.0 / 1024.0,
                16.0 / 1024.0,
                Some(50.0)
            ),
        ]
    );
}

#[test]
fn a_quota_that_is_too_small_says_what_to_request_in_words_to_paste() {
    let with = |quota: f64, running: u64| {
        let mut facts = facts();
        facts.quotas.insert("L-1216C47A", Ok(quota));
        facts.running = Ok([("t3.medium".into(), running)].into());
        facts
    };
    let fallback = "instance = [\"t3.medium\", \"m6i.xlarge\"]";
    // 2 + 2 vCPUs; with web as an m6i.xlarge 2 + 4.
    assert_eq!(found(fallback, &with(6.0, 0)), [] as [&str; 0]);
    assert_one(
        &found(fallback, &with(5.0, 0)),
        &[
            "larger types",
            "\"Request an increase of 'Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances' (L-1216C47A) in eu-central-1 from 5 to 6 vCPUs\"",
            "days",
        ],
    );
    assert_one(
        &found(fallback, &with(5.0, 1)),
        &[
            "some VMs would not start",
            "2 are in use",
            "from 5 to 8 vCPUs",
        ],
    );
    // Of another family, and another quota: nobody may have any.
    let mut none = facts();
    none.quotas.insert("L-7295265B", Ok(0.0));
    let of_memory = "instance = [\"t3.medium\", \"x2idn.16xlarge\"]";
    assert_one(&found(of_memory, &none), &["L-7295265B", "from 0 to 64"]);
    // Two volumes of 8 GiB: in TiB, rounded up.
    let mut full = facts();
    full.volumes_gib = Ok([("gp3".into(), 50 * 1024 - 15)].into());
    assert_one(
        &found("", &full),
        &["L-7A658B76", "49.99 are in use", "from 50 to 51 TiB"],
    );
    let mut full = facts();
    full.snapshots = Ok(999);
    assert_one(
        &found("", &full),
        &["L-309BACF6", "from 1000 to 1001 snapshots"],
    );
}

#[test]
fn what_zones_do_not_offer_is_found_with_the_vms_that_want_it() {
    let without = |gone: &[(&str, &str)]| {
        let mut facts = facts();
        let all = facts.offered.as_mut().unwrap();
        for (kind, zone) in gone {
            assert!(all.remove(&((*kind).into(), (*zone).into())));
        }
        facts
    };
    let (a, b) = ("eu-central-1a", "eu-central-1b");
    let fallback = "instance = [\"t3.medium\", \"m6i.xlarge\"]\nsubnet = [\"servers\", \"second\"]";
    let first = found(fallback, &without(&[("t3.medium", a)]));
    // dc01 is in the one zone alone, with nothing else to try.
    assert!(
        first.len() == 2
            && first[0].contains("VM dc01: it cannot start")
            && first[1].contains("VMs dc01, web: instance type t3.medium is not offered in zone eu-central-1a: it is the first choice"),
        "{first:#?}"
    );
    assert_one(
        &found(fallback, &without(&[("m6i.xlarge", b)])),
        &[
            "VM web: instance type m6i.xlarge",
            "one chance less",
            "a subnet of eu-central-1a",
        ],
    );
    assert_one(
        &found(fallback, &without(&[("m6i.xlarge", a), ("m6i.xlarge", b)])),
        &["instance type m6i.xlarge is not offered in eu-central-1"],
    );
}

#[test]
fn a_network_that_is_not_the_plan_s_is_found() {
    let seen = |change: &dyn Fn(&mut BTreeMap<String, SubnetFacts>)| {
        let mut facts = facts();
        change(facts.subnets.as_mut().unwrap());
        found("security_groups = [\"sg-1\"]", &facts)
    };
    type Change = Box<dyn Fn(&mut BTreeMap<String, SubnetFacts>)>;
    let at = |id: &'static str, change: fn(&mut SubnetFacts)| -> Change {
        Box::new(move |all| change(all.get_mut(id).unwrap()))
    };
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(|all| drop(all.remove("subnet-9"))),
            "its twin subnet-9): there is no such subnet",
        ),
        (
            at("subnet-1", |one| one.range = "10.9.0.0/24".parse().ok()),
            "it is 10.9.0.0/24, the plan says 10.20.0.0/24",
        ),
        (at("subnet-1", |one| one.range = None), "it is another one"),
        (
            at("subnet-2", |one| one.zone = "eu-central-1c".into()),
            "it is in eu-central-1c, the plan says eu-central-1b",
        ),
        (
            at("subnet-9", |one| one.vpc = "vpc-1".into()),
            "the test network is the recovery network",
        ),
        (
            at("subnet-1", |one| one.free = 1),
            "1 are free, and 2 VMs are put there first",
        ),
        (
            at("subnet-1", |one| one.vpc = "vpc-2".into()),
            "it is one of vpc-1, and subnet servers is in vpc-2",
        ),
    ];
    for (change, told) in cases {
        assert_one(&seen(&change), &[told]);
    }
    assert_one(
        &found("security_groups = [\"sg-2\"]", &facts()),
        &["security group sg-2 cannot be used", "VM web"],
    );
}

#[test]
fn an_address_that_something_else_has_is_found() {
    let held = |subnet: &str, vm: Option<&str>| {
        let mut facts = facts();
        let holder = Holder {
            interface: "eni-1".into(),
            vm: vm.map(str::to_owned),
        };
        let at = (subnet.to_owned(), "10.20.0.77".parse().unwrap());
        facts.holders = Ok([(at, holder)].into());
        found("address = \"10.20.0.77\"", &facts)
    };
    assert_one(
        &held("subnet-1", None),
        &["VM web: its address 10.20.0.77 is in use", "eni-1"],
    );
    assert_one(&held("subnet-9", Some("dc01")), &["subnet-9"]);
    // Itself, in a run that is up.
    assert_eq!(held("subnet-1", Some("web")), [] as [&str; 0]);
    assert_eq!(held("subnet-2", None), [] as [&str; 0]);
}

#[test]
fn the_key_has_to_be_one_that_encrypts_volumes() {
    let arn = "arn:aws:kms:eu-central-1:123456789012:key/a";
    let with = |key: Answer<Option<KeyFacts>>| {
        let mut facts = facts();
        facts.key = Some(key);
        let mut plan = planned("");
        plan.volume_key = Some(arn.into());
        let judged = judge_cloud(&plan, &rows(&plan), &facts);
        judged
            .findings
            .iter()
            .map(|one| format!("{} {}", one.on, one.why))
            .collect::<Vec<_>>()
    };
    let key = |state: &str, encrypts| {
        Ok(Some(KeyFacts {
            state: state.into(),
            encrypts,
        }))
    };
    assert_eq!(with(key("Enabled", true)), [] as [&str; 0]);
    assert_one(
        &with(key("PendingDeletion", true)),
        &[arn, "PendingDeletion"],
    );
    assert_one(&with(key("Enabled", false)), &["symmetric"]);
    assert_one(&with(Ok(None)), &["no such key"]);
}

#[test]
fn rights_that_are_missing_are_found_and_what_could_not_be_asked_is_said_once() {
    let mut facts = facts();
    let right = |may| Right {
        action: "ec2:RunInstances",
        on: "subnet servers".into(),
        may,
    };
    facts.rights = Ok(vec![
        right(May::Yes),
        right(May::No("not authorized".into())),
        right(May::Untold("odd".into())),
    ]);
    let plan = planned("");
    let judged = judge_cloud(&plan, &rows(&plan), &facts);
    assert_eq!(judged.findings.len(), 1);
    assert!(judged.findings[0].what.contains("ec2:RunInstances"));
    assert_eq!(judged.findings[0].why, "not authorized");
    assert!(
        judged.notes.iter().any(|note| note.ends_with("odd")),
        "{:?}",
        judged.notes
    );

    let denied = |what: &str, right| Unasked {
        what: what.into(),
        why: "denied".into(),
        right,
    };
    for code in ["L-1216C47A", "L-7A658B76"] {
        facts.quotas.insert(
            code,
            Err(denied(code, Some("servicequotas:GetServiceQuota"))),
        );
    }
    facts.offered = Err(denied("offers", Some("ec2:DescribeInstanceTypeOfferings")));
    facts.snapshots = Err(denied("snapshots", None));
    facts.rights = Ok(Vec::new());
    let told = found("", &facts);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told.iter().any(|one| one
            .starts_with("L-1216C47A, L-7A658B76: the cloud could not be asked")
            && one.contains("give this one servicequotas:GetServiceQuota")),
        "{told:#?}"
    );
    let told = judge_cloud(&plan, &rows(&plan), &facts);
    assert!(told.notes[0].contains("rights were not asked"));
    assert_eq!(told.quotas[0].quota, None);

    // An identity that may ask nothing.
    facts.running = Err(denied("running", Some("ec2:DescribeInstances")));
    facts.volumes_gib = Err(denied("volumes", Some("ec2:DescribeVolumes")));
    assert_one(
        &found("", &facts),
        &[
            "running",
            "volumes",
            "ec2:DescribeInstances, ec2:DescribeVolumes",
            "the role that would do",
        ],
    );
}

#[test]
fn what_is_still_to_be_filled_in_is_not_asked() {
    let mut plan = planned("address = \"10.20.0.9\"\nsecurity_groups = [\"sg-1\"]");
    let asked = Questions::of(&plan, &[]);
    assert_eq!(asked.subnets.len(), 3);
    assert!(asked.addresses && asked.security_groups.contains("sg-1"));
    plan.subnets[0].id = format!("subnet-{}", draft::TO_FILL);
    assert_eq!(Questions::of(&plan, &[]).subnets.len(), 2);
}
