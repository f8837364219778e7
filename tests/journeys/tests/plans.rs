//! Recovery plans: drafted from a vault, filled in by hand, judged against it.

use std::fs;

use journeys::*;

#[test]
fn a_plan_is_drafted_filled_in_and_judged() {
    let site = Site::new();
    let mut sources = Vec::new();
    for (seed, name) in [(1, "dc01"), (2, "web")] {
        let disk = format!("{name}.raw");
        make_random(&site.path(&disk), MIB, seed);
        sources.push((name, site.disks(&[&disk])));
    }
    let vms: Vec<_> = sources
        .iter()
        .map(|(name, source)| (*name, source.as_str()))
        .collect();
    site.configure(&vms);
    site.sync();

    let plan = site.shown("plan.toml");
    let new = ["plan", "new", "--region", "us-east-1", "--output", &plan];
    site.restore(&new).ok().says(&["a plan for 2 VMs"]);
    // Never over one that somebody filled in.
    site.restore(&new).exits(1).says(&["exists already"]);
    site.restore(&["plan", "new", "--region", "us-east-1", "dc02"])
        .exits(1)
        .says(&["dc02", "dc01, web"]);

    let draft = site.restore(&["plan", "check", &plan]).exits(3);
    draft.says(&["filled in"]);
    let text = fs::read_to_string(&plan).expect("the plan");
    let text = text.replace("subnet-TO-FILL-IN", "subnet-0123");
    fs::write(&plan, &text).expect("written");
    // By its name it is one; where those of the site are, nobody said.
    site.restore(&["plan", "check", &plan])
        .exits(3)
        .says(&["nobody is asked whether a domain controller lives"]);
    let controller = "domain_controller = true";
    let text = text.replace(
        controller,
        &format!("site_address = \"192.0.2.10\"\n{controller}"),
    );
    fs::write(&plan, text).expect("written");
    let judged = site
        .restore(&["plan", "check", &plan, "--json"])
        .ok()
        .json();
    let rows = judged["rows"].as_array().expect("rows");
    let order: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["step"].as_u64(),
                row["vm"].as_str(),
                row["point"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        order,
        [
            (Some(1), Some("dc01"), Some(1)),
            (Some(2), Some("web"), Some(1))
        ],
        "domain controllers come first"
    );
    // On site there are no credentials of the cloud: the plan can be checked all the same.
    assert_eq!(judged["cloud"]["asked"], false);
    site.restore(&["plan", "check", &plan])
        .ok()
        .says(&["cloud: not asked: no AWS credentials here"]);
    assert!(
        judged["cost_usd"]["day"]
            .as_f64()
            .is_some_and(|usd| usd > 0.0),
        "{judged}"
    );

    // Prices of one's own.
    let prices = site.restore(&["plan", "prices"]).ok().stdout;
    let own = site.shown("prices.toml");
    fs::write(
        &own,
        prices.replace(
            "[instances]",
            "[instances]\n\"own.large\" = { vcpus = 2, memory_mib = 4096, usd_per_hour = 9.0 }",
        ),
    )
    .expect("written");
    let text = fs::read_to_string(&plan).expect("the plan");
    fs::write(&plan, text.replace("\"t3a.medium\"", "\"own.large\"")).expect("written");
    site.restore(&["plan", "check", &plan])
        .exits(3)
        .says(&["not in the price table"]);
    let judged = site
        .restore(&["plan", "check", &plan, "--prices", &own, "--json"])
        .ok()
        .json();
    assert!(
        judged["cost_usd"]["day"]
            .as_f64()
            .is_some_and(|usd| (432.0..433.0).contains(&usd)),
        "{judged}"
    );
}

#[test]
fn a_plan_that_does_not_fit_is_refused_or_found() {
    let site = Site::new();
    make_random(&site.path("a.raw"), MIB, 1);
    site.configure(&[("web", &site.disks(&["a.raw"]))]);
    let plan = site.shown("plan.toml");
    let new = ["plan", "new", "--region", "us-east-1", "--output", &plan];
    site.restore(&new).exits(1).says(&["no recovery point yet"]);
    assert!(!site.path("plan.toml").exists());
    site.sync();
    site.restore(&new).ok();
    let text = fs::read_to_string(&plan)
        .expect("the plan")
        .replace("subnet-TO-FILL-IN", "subnet-0123");

    for (old, new, code, told) in [
        ("point = ", "piont = ", 2, "unknown field `piont`"),
        (
            "group = \"servers\"",
            "group = \"server\"",
            2,
            "no group \"server\"",
        ),
        (
            "name = \"web\"",
            "name = \"wbe\"",
            3,
            "no recovery point of it that opens",
        ),
        (
            "\"latest\"",
            "\"latest-proven\"",
            3,
            "booted none of its recovery points",
        ),
        ("cloud = ", "", 2, "plan.toml is no recovery plan"),
    ] {
        assert!(text.contains(old), "{old}");
        fs::write(&plan, text.replace(old, new)).expect("written");
        site.restore(&["plan", "check", &plan])
            .exits(code)
            .says(&[told]);
    }
    site.restore(&["plan", "check", "nowhere.toml"])
        .exits(2)
        .says(&["nowhere.toml"]);
    fs::write(&plan, [0xff, 0xfe]).expect("written");
    site.restore(&["plan", "check", &plan])
        .exits(2)
        .says(&["plan.toml"]);
}

#[test]
fn the_vault_keeps_plans_so_that_the_kit_is_enough() {
    let site = Site::new();
    make_random(&site.path("a.raw"), MIB, 1);
    site.configure(&[("web", &site.disks(&["a.raw"]))]);
    site.sync();
    site.restore(&["plan", "list"])
        .ok()
        .says(&["keeps no plan"]);
    site.restore(&["plan", "show", "whole-site"])
        .exits(1)
        .says(&["keeps no plan", "plan keep"]);
    let plan = site.shown("plan.toml");
    site.restore(&["plan", "new", "--region", "us-east-1", "--output", &plan])
        .ok();
    let text = fs::read_to_string(&plan)
        .expect("the plan")
        .replace("subnet-TO-FILL-IN", "subnet-0123");
    fs::write(
        &plan,
        text.replace("name = \"web\"", "name = \"wbe\"")
            .replace("group = \"servers\"", "group = \"x\""),
    )
    .expect("written");
    site.restore(&["plan", "keep", &plan])
        .exits(2)
        .says(&["no group"]);
    fs::write(&plan, &text).expect("written");
    site.restore(&["plan", "keep", &plan])
        .ok()
        .says(&["keeps plan whole-site now: 1 VMs"]);
    // The newest text is the one.
    let newer = text.clone() + "\n# changed\n";
    fs::write(&plan, &newer).expect("written");
    site.restore(&["plan", "keep", &plan]).ok();
    fs::remove_file(&plan).expect("removed");
    assert_eq!(
        site.restore(&["plan", "show", "whole-site"]).ok().stdout,
        newer
    );
    let listed = site.restore(&["plan", "list", "--json"]).ok().json();
    assert_eq!(
        (&listed["plans"][0]["plan"], &listed["plans"][0]["vms"]),
        (&"whole-site".into(), &1.into())
    );
    let judged = site
        .restore(&["plan", "check", "whole-site", "--json"])
        .ok()
        .json();
    assert_eq!(judged["rows"][0]["vm"], "web");
    let rounds = site
        .restore(&["failover", "whole-site", "--dry-run", "--json"])
        .ok()
        .json();
    assert_eq!(rounds["rounds"][0][0], "fence web");
    // No run, and nothing that a store could read.
    site.restore(&["runs"])
        .ok()
        .says(&["no plan was carried out yet"]);
    let kept = site.path("vault/control/runs");
    let grep = std::process::Command::new("grep")
        .args(["-r", "-l", "subnet-0123"])
        .arg(kept)
        .output()
        .expect("grep runs");
    assert!(grep.stdout.is_empty(), "{grep:?}");
}
