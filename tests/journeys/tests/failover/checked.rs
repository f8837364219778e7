//! Weeks before the day: what the account lacks is found by `plan check`, and what to ask for.

use std::fs;

use journeys::*;
use serde_json::{Value, json};

use super::cloud::Cloud;

const STANDARD: &str = "L-1216C47A";

/// Two VMs of one small disk each, and an account that has room for them.
fn checked() -> (Cloud, String) {
    let cloud = Cloud::new();
    for (seed, name) in [(1, "dc01.raw"), (2, "db.raw")] {
        make_random(&cloud.site.path(name), MIB, seed);
    }
    cloud.site.configure(&[
        ("dc01", &cloud.site.disks(&["dc01.raw"])),
        ("db", &cloud.site.disks(&["db.raw"])),
    ]);
    cloud.site.sync();
    let plan = cloud.plan("");
    cloud.aws.control("POST", "reset", None);
    cloud
        .aws
        .control("POST", "quotas", Some(json!({STANDARD: 32})));
    (cloud, plan)
}

fn check(cloud: &Cloud, plan: &str) -> Run {
    cloud.site.restore(&["plan", "check", plan])
}

fn rewrite(plan: &str, old: &str, new: &str) {
    let text = fs::read_to_string(plan).expect("the plan");
    assert!(text.contains(old), "{old}");
    fs::write(plan, text.replace(old, new)).expect("written");
}

#[test]
fn a_plan_that_fits_its_account_has_no_finding_and_nothing_is_made() {
    let (cloud, plan) = checked();
    let run = cloud.site.restore(&["plan", "check", &plan, "--json"]).ok();
    assert!(run.stderr.contains("asking AWS in eu-central-1"), "{run}");
    let cloud_json = run.json()["cloud"].clone();
    assert_eq!(cloud_json["asked"], true);
    let quota = &cloud_json["quotas"][0];
    assert_eq!(
        (
            &quota["code"],
            &quota["quota"],
            &quota["used"],
            &quota["needed"],
            &quota["needed_at_most"]
        ),
        (
            &json!(STANDARD),
            &json!(32.0),
            &json!(0.0),
            &json!(4.0),
            &json!(4.0)
        )
    );
    check(&cloud, &plan).ok().says(&[
        "quota L-1216C47A, vCPUs: 4 needed, 0 in use, 32 allowed",
        "rights were not asked: a dry run needs an image",
    ]);
    // It looks, and does nothing else.
    let requests = cloud.aws.control("GET", "requests", None);
    let asked = requests.as_array().expect("a list").iter();
    let asked = asked.filter(|request| request["service"] != "s3");
    for request in asked {
        let action = request["action"].as_str().expect("a name");
        assert!(
            action.starts_with("Describe") || action.starts_with("Get"),
            "{request}"
        );
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());

    // Asked not to, and with nobody to ask as.
    let before = cloud.aws.requests("DescribeSubnets").len();
    cloud
        .site
        .restore(&["plan", "check", &plan, "--offline"])
        .ok()
        .says(&["cloud: not asked: --offline"]);
    assert_eq!(cloud.aws.requests("DescribeSubnets").len(), before);
    // Credentials that are no longer good are a finding: something is wrong here.
    cloud.aws.faults(
        json!([{"service": "ec2", "action": "DescribeInstances", "times": -1,
        "error": {"status": 403, "code": "ExpiredTokenException", "message": "expired"}}]),
    );
    check(&cloud, &plan)
        .exits(3)
        .says(&["the cloud could not be asked", "renew the credentials"]);
}

#[test]
fn a_quota_that_is_too_small_says_what_to_request_today() {
    let (cloud, plan) = checked();
    // A young account's, where nobody asked for more: AWS's default is 5. With fallbacks twice as large it does not do.
    cloud
        .aws
        .control("POST", "quotas", Some(json!({STANDARD: null})));
    rewrite(&plan, "\"t3.medium\"", "\"t3.xlarge\"");
    let request = |to: u32| {
        format!(
            "Request an increase of 'Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances' (L-1216C47A) in eu-central-1 from 5 to {to} vCPUs"
        )
    };
    let wrapped = |run: Run, words: &[&str]| {
        // Whatever the width of the terminal.
        let said = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(said.contains(word), "{word}: {run}");
        }
    };
    wrapped(
        check(&cloud, &plan).exits(3),
        &["larger types", &request(8)],
    );
    assert_eq!(cloud.aws.requests("GetAWSDefaultServiceQuota").len(), 1);
    rewrite(&plan, "\"t3a.medium\"", "\"t3a.xlarge\"");
    wrapped(
        check(&cloud, &plan).exits(3),
        &["some VMs would not start", &request(8)],
    );
}

#[test]
fn what_the_zones_and_the_network_do_not_have_is_found() {
    let (cloud, plan) = checked();
    let subnet = cloud.network["recovery"]["subnets"][0]
        .as_str()
        .expect("an id");
    let group = cloud.network["recovery"]["security_group"]
        .as_str()
        .expect("an id");
    let text = fs::read_to_string(&plan).expect("the plan");
    let test_group = cloud.network["test"]["security_group"]
        .as_str()
        .expect("an id");
    let key = "arn:aws:kms:eu-central-1:123456789012:key/5a7e517e-0000-4000-8000-00000000d15c";
    let zone = "eu-central-1a\"";
    for (old, new, told) in [
        // moto's true data: in no zone of Frankfurt.
        (
            "\"t3.medium\"",
            "\"u-24tb1.metal\"".to_owned(),
            "instance type u-24tb1.metal is not offered in eu-central-1",
        ),
        (
            "name = \"whole-site\"",
            format!("name = \"whole-site\"\nvolume_key = \"{key}\""),
            "no such key",
        ),
        (
            subnet,
            "subnet-0123456789abcdef0".into(),
            "there is no such subnet in eu-central-1",
        ),
        (
            "10.20.1.0/24",
            "10.20.0.0/24".into(),
            "it is 10.20.1.0/24, the plan says 10.20.0.0/24",
        ),
        (
            zone,
            "eu-central-1c\"".into(),
            "it is in eu-central-1a, the plan says eu-central-1c",
        ),
        (group, test_group.into(), "cannot be used"),
        (
            group,
            "sg-0123456789abcdef0".into(),
            "there is none in eu-central-1",
        ),
    ] {
        assert!(text.contains(old), "{old}");
        fs::write(&plan, text.replace(old, &new)).expect("written");
        let found = cloud.site.restore(&["plan", "check", &plan, "--json"]);
        assert!(found.stdout.contains(told), "{told}: {found}");
    }
    // An address that something else has.
    cloud.aws.account(&["interface", subnet, "10.20.1.77"]);
    fs::write(
        &plan,
        text.replacen("tags = {", "address = \"10.20.1.77\"\ntags = {", 1),
    )
    .expect("written");
    let found = cloud
        .site
        .restore(&["plan", "check", &plan, "--json"])
        .exits(3);
    assert!(
        found.stdout.contains("its address 10.20.1.77 is in use"),
        "{found}"
    );
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
}

#[test]
fn rights_are_asked_on_what_a_run_made_and_what_is_missing_is_named() {
    let (cloud, plan) = checked();
    cloud.aws.account(&["image", "r1", "dc01"]);
    check(&cloud, &plan)
        .ok()
        .says(&["rights were asked by dry runs"]);
    let runs = cloud.aws.requests("RunInstances");
    // Each subnet and its twin, as they would be asked for.
    assert_eq!(runs.len(), 4);
    for run in &runs {
        assert_eq!(
            (&run["parameters"]["DryRun"], &run["error_code"]),
            (&json!(true), &json!("DryRunOperation")),
            "{run}"
        );
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());

    let denied = |action: &str| {
        json!({"action": action, "times": -1, "error":
            {"status": 403, "code": "UnauthorizedOperation", "message": "You are not authorized"}})
    };
    for action in [
        "RunInstances",
        "RegisterImage",
        "DeregisterImage",
        "DeleteSnapshot",
    ] {
        cloud.aws.faults(json!([denied(action)]));
        check(&cloud, &plan).exits(3).says(&[
            "this identity may not do what a failover does",
            &format!("ec2:{action}"),
            "terraform/aws/roles",
        ]);
        cloud.aws.no_faults();
    }
    // What may not even be asked is no failure, and the rest is judged.
    let refused = json!({"action": "GetServiceQuota", "times": -1, "error":
        {"status": 400, "code": "AccessDeniedException", "message": "no"}});
    cloud.aws.faults(json!([
        refused,
        denied("DescribeInstanceTypeOfferings"),
        denied("DescribeImages")
    ]));
    let run = check(&cloud, &plan).exits(3).says(&[
        "the cloud could not be asked",
        "servicequotas:GetServiceQuota",
        "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeImages",
        "vCPUs: 4 needed, 0 in use, ? allowed",
    ]);
    assert!(!run.stdout.contains("is too small"), "{run}");
}
