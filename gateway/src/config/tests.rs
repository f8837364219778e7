//! What a file may say, and the exact words for what it may not.

mod running_vms;

use std::path::Path;

use virtual_disk::Format;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let file = Path::new("gateway.toml");
    Config::parse(text, file, Path::new("/etc/sparesite")).map_err(|error| error.to_string())
}

const GOOD: &str = r#"
state = "/var/lib/sparesite/state"

[vault]
url = "s3://acme-dr/site1"
key = "gateway.key"

[[policy]]
name = "servers"
rpo = "1h"
consistency = "application"

[[policy]]
name = "rest"
rpo = "1d"

[[vm]]
name = "files"
policy = "rest"
source = { disks = [{ path = "/dev/vg0/files" }, { path = "/dev/vg0/swap", exclude = true }], before = "/etc/sparesite/freeze-files", after = "thaw-files" }

[[vm]]
name = "dc01"
policy = "servers"
priority = 1
source.disks = ["/srv/images/a.qcow2", { path = "b.img", name = "data", format = "raw" }]
"#;

fn disk(name: &str, path: &str, format: Option<Format>, exclude: bool) -> Disk {
    Disk {
        name: name.into(),
        path: path.into(),
        format,
        exclude,
    }
}

#[test]
fn a_good_file_becomes_a_plain_value() {
    let config = parse(GOOD).expect("good");
    assert_eq!(config.state, Path::new("/var/lib/sparesite/state"));
    let key = "/etc/sparesite/gateway.key".into();
    assert_eq!(
        config.vault,
        Vault {
            url: "s3://acme-dr/site1".into(),
            key
        }
    );
    assert_eq!(
        config.vms[0],
        Vm {
            name: "files".into(),
            policy: 1,
            priority: None,
            source: Source::Disks(vec![
                disk("files", "/dev/vg0/files", None, false),
                disk("swap", "/dev/vg0/swap", None, true)
            ]),
            before: Some("/etc/sparesite/freeze-files".into()),
            after: Some("/etc/sparesite/thaw-files".into()),
            guest_hooks: false,
            on_fenced: None,
        }
    );
    assert_eq!(
        config.vms[1].disks(),
        [
            disk("a", "/srv/images/a.qcow2", None, false),
            disk("data", "/etc/sparesite/b.img", Some(Format::Raw), false)
        ]
    );
    let order: Vec<_> = config
        .vms_by_priority()
        .iter()
        .map(|vm| vm.name.as_str())
        .collect();
    assert_eq!(order, ["dc01", "files"]);
    let policy = config.policy_of(&config.vms[1]);
    assert_eq!(
        (policy.rpo_target.seconds(), policy.consistency),
        (3600, Consistency::Application)
    );
    assert_eq!(config.policies[1].consistency, Consistency::Crash);
    assert_eq!(config.targets, []);
}

#[test]
fn targets_are_kept_in_the_order_of_the_file() {
    let config = parse(&format!("targets = [\"qemu\", \"aws\"]{GOOD}")).expect("good");
    assert_eq!(config.targets, [Target::Qemu, Target::Aws]);
}

/// The good file with the one `from` replaced by `to`.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from}");
    parse(&GOOD.replace(from, to)).expect_err(to)
}

const STATE: &str = "state = \"/var/lib/sparesite/state\"";
const URL: &str = "url = \"s3://acme-dr/site1\"";
const KEY: &str = "key = \"gateway.key\"";
const A_AND_B: &str =
    "[\"/srv/images/a.qcow2\", { path = \"b.img\", name = \"data\", format = \"raw\" }]";

#[test]
fn each_mistake_is_named_with_its_place() {
    for (from, to, message) in [
        (
            STATE,
            "stat = \"/x\"",
            "2:1: unknown key `stat`: did you mean `state`?\ngateway.toml: `state` is missing: write state = \"/var/lib/sparesite/state\"",
        ),
        (
            STATE,
            "state = 5",
            "2:9: `state` is a number: it must be a string in quotes",
        ),
        (STATE, "state = \"\"", "2:9: `state` is empty"),
        (
            STATE,
            "state = \"/s\"\ntargets = \"aws\"",
            "3:11: `targets` is a string: it must be a list",
        ),
        (
            STATE,
            "state = \"/s\"\ntargets = [\"aws\", \"azur\", \"aws\", \"gcp\"]",
            "3:19: `targets` lists \"azur\", which is none: did you mean \"azure\"?\n\
             gateway.toml:3:27: `targets` lists \"aws\" twice\n\
             gateway.toml:3:34: `targets` lists \"gcp\", which is none: known are \"aws\", \"azure\", \"qemu\"",
        ),
        (
            STATE,
            "state = \"/s\"\ntarget = [\"aws\"]",
            "3:1: unknown key `target`: did you mean `targets`?",
        ),
        (
            STATE,
            "state = \"/s\"\nbanana = 1",
            "3:1: unknown key `banana`: known are `state`, `timezone`, `vault`, `uplink`, `outbox`, `scratch`, `alert`, `on_fenced`, `targets`, `host`, `policy`, `vm`, `group`",
        ),
        (
            "[vault]",
            "[uplink]\ntransfer_allowance = \"500 GB\"\n[vault]",
            "5:1: `transfer_allowance` in [uplink] is not in this version: remove it",
        ),
        (
            "[vault]",
            "[budget]\nmonthly = \"25 USD\"\n[vault]",
            "4:2: `budget` is not in this version: remove it",
        ),
        (
            URL,
            "uri = \"s3://acme-dr\"",
            "4:1: `url` is missing in [vault]: write url = \"s3://BUCKET/PREFIX\"\ngateway.toml:5:1: unknown key `uri` in [vault]: did you mean `url`?",
        ),
        (
            URL,
            "url = \"s3://K:topsecret@acme-dr\"",
            "5:7: `url` in [vault] is no vault URL: credentials and ports do not belong into it; write file:///FOLDER, s3://BUCKET/PREFIX or azure://ACCOUNT/CONTAINER/PREFIX",
        ),
        (
            KEY,
            "",
            "4:1: `key` is missing in [vault]: write key = \"/etc/sparesite/gateway.key\"",
        ),
        (
            "rpo = \"1h\"",
            "rpo = 60",
            "10:7: `rpo` in policy \"servers\" is a number: it must be a string in quotes",
        ),
        (
            "rpo = \"1h\"",
            "rpo = \"60\"",
            "10:7: `rpo` in policy \"servers\": \"60\" is not a duration such as \"15m\" or \"1h 30m\" (s, m, h, d, w): the unit is missing",
        ),
        (
            "rpo = \"1h\"",
            "rpo = \"0s\"",
            "10:7: `rpo` in policy \"servers\" is zero: write \"5m\" or more",
        ),
        (
            "rpo = \"1h\"",
            "",
            "8:1: `rpo` is missing in policy \"servers\": write rpo = \"1h\"",
        ),
        (
            "\"application\"",
            "\"app\"",
            "11:15: `consistency` in policy \"servers\" is \"app\": it must be one of `none`, `crash`, `file-system`, `application`",
        ),
        (
            "\"application\"",
            "\"crash\"\nretain = { hourly = 24 }",
            "12:1: `retain` in policy \"servers\" is not in this version: remove it",
        ),
        (
            "name = \"rest\"",
            "name = \"servers\"",
            "14:8: a second policy \"servers\": give each its own name\ngateway.toml:19:10: `policy` in VM \"files\" names no policy: \"rest\"",
        ),
        (
            "policy = \"servers\"",
            "policy = \"serves\"",
            "24:10: `policy` in VM \"dc01\" names no policy: \"serves\": did you mean \"servers\"?",
        ),
        (
            "name = \"dc01\"",
            "name = \"FILES\"",
            "23:8: VM \"FILES\" differs from \"files\" by case only: give it another name",
        ),
        (
            "name = \"dc01\"",
            "name = \"dc 01\"",
            "23:8: \"dc 01\" is no name for a VM: a name is made of A-Z, a-z, 0-9, `.`, `_` and `-`",
        ),
        (
            "name = \"dc01\"",
            "name = \"..\"",
            "23:8: \"..\" is no name for a VM: a name does not begin with `.` or `-`",
        ),
        (
            "name = \"dc01\"",
            "name = \"-dc01\"",
            "23:8: \"-dc01\" is no name for a VM: a name does not begin with `.` or `-`",
        ),
        (
            "name = \"dc01\"",
            "",
            "22:1: `name` is missing in [[vm]]: write name = \"NAME\"",
        ),
        (
            "priority = 1",
            "priority = 0",
            "25:12: `priority` in VM \"dc01\" is 0: it must be a whole number from 1 to 1000",
        ),
        (
            "priority = 1",
            "priority = \"high\"",
            "25:12: `priority` in VM \"dc01\" is a string: it must be a whole number from 1 to 1000",
        ),
        (
            "priority = 1",
            "prority = 1",
            "25:1: unknown key `prority` in VM \"dc01\": did you mean `priority`?",
        ),
        (
            A_AND_B,
            "[]",
            "26:16: VM \"dc01\" has no disks: list at least one",
        ),
        (
            A_AND_B,
            "\"/srv/a\"",
            "26:16: `disks` in the source of VM \"dc01\" is a string: it must be a list",
        ),
        (
            A_AND_B,
            "[7]",
            "26:17: a disk of VM \"dc01\" is a number: it must be a path or a table with path",
        ),
        (
            A_AND_B,
            "[{ name = \"x\" }]",
            "26:17: `path` is missing in a disk of VM \"dc01\": write path = \"/dev/vg0/files\"",
        ),
        (
            A_AND_B,
            "[{ path = \"/a\", format = \"iso\" }]",
            "26:41: `format` in a disk of VM \"dc01\" is \"iso\": it must be one of `raw`, `qcow2`, `vhd`, `vhdx`, `vmdk`, `vdi`",
        ),
        (
            A_AND_B,
            "[{ path = \"/a\", exlude = true }]",
            "26:32: unknown key `exlude` in a disk of VM \"dc01\": did you mean `exclude`?",
        ),
        (
            A_AND_B,
            "[{ path = \"/a\", exclude = true }]",
            "26:16: every disk of VM \"dc01\" is excluded: nothing is protected",
        ),
        (
            A_AND_B,
            "[\"/a\", \"/x/../a\"]",
            "26:23: VM \"dc01\" lists the disk /a twice",
        ),
        (
            A_AND_B,
            "[\"/dev/vg0/swap\"]",
            "26:17: VM \"dc01\" lists the disk /dev/vg0/swap, which VM \"files\" lists already",
        ),
        (
            A_AND_B,
            "[{ path = \"/a\", name = \"X\" }, { path = \"/b\", name = \"x\" }]",
            "26:46: a second disk \"x\" in VM \"dc01\": give each its own name",
        ),
        (
            A_AND_B,
            "[{ path = \"/a\", name = \"a/b\" }]",
            "26:39: \"a/b\" is no name for a disk: a name is made of A-Z, a-z, 0-9, `.`, `_` and `-`",
        ),
    ] {
        assert_eq!(changed(from, to), format!("gateway.toml:{message}"), "{to}");
    }
}

#[test]
fn a_source_of_another_kind_is_refused_as_such() {
    let source = format!("source.disks = {A_AND_B}");
    assert_eq!(
        changed(&source, "source = { hyperv = { vm = \"dc01\" } }"),
        "gateway.toml:26:12: `hyperv` in the source of VM \"dc01\" is not in this version: remove it"
    );
    assert_eq!(
        changed(&source, "source = { disk = [\"/a\"] }"),
        "gateway.toml:26:10: `disks` is missing in the source of VM \"dc01\": write disks = \
         [\"/dev/vg0/files\"]\n\
         gateway.toml:26:12: unknown key `disk` in the source of VM \"dc01\": did you mean `disks`?"
    );
}

#[test]
fn vault_state_and_key_stay_apart() {
    let place = |url: &str, state: &str, key: &str| {
        let text = GOOD.replace(URL, &format!("url = \"{url}\""));
        let text = text.replace(STATE, &format!("state = \"{state}\""));
        parse(&text.replace(KEY, &format!("key = \"{key}\"")))
    };
    assert!(place("file:///srv/vault", "/srv/vault-state", "k").is_ok());
    for (url, state, key, message) in [
        (
            "file:///s/x/vault",
            "/s/x",
            "k",
            "the vault /s/x/vault lies inside the state folder /s/x, which may be deleted at any time: choose another folder for one of them",
        ),
        (
            "file:///s/x/",
            "/s/./x",
            "k",
            "the vault /s/x lies inside the state folder /s/x, which may be deleted at any time: choose another folder for one of them",
        ),
        (
            "file:///s/x",
            "/s/y/../x/state",
            "k",
            "the state folder /s/x/state lies inside the vault /s/x: choose another folder for one of them",
        ),
        (
            "file:///s/x",
            "/state",
            "/s/x/k",
            "the key /s/x/k lies inside the vault /s/x, where every reader of the vault finds it: keep it elsewhere",
        ),
    ] {
        assert_eq!(
            place(url, state, key),
            Err(format!("gateway.toml:4:1: {message}"))
        );
    }
}

#[test]
fn text_that_is_not_toml_is_shown() {
    let refused = changed(URL, "url \"s3://acme-dr\"");
    let mut lines = refused.lines();
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("gateway.toml:5:")),
        "{refused}"
    );
    assert_eq!(
        lines.next(),
        Some("  5 | url \"s3://acme-dr\""),
        "{refused}"
    );
    assert!(
        lines.next().is_some_and(|line| line.trim() == "|     ^"),
        "{refused}"
    );
}

#[test]
fn all_problems_are_reported_together_in_the_order_of_the_file() {
    let text = "policy = []\nvault = 3\n[[vm]]\nname = \"a\"\nsource = {}\n[vm.x]\n";
    assert_eq!(
        parse(text).expect_err("bad"),
        "gateway.toml:1:10: `policy` is empty: write a [[policy]] table\n\
         gateway.toml:2:9: [vault] is a number: it must be a table\n\
         gateway.toml:3:1: `policy` is missing in VM \"a\": write policy = \"NAME\" of a [[policy]]\n\
         gateway.toml:5:10: `disks` is missing in the source of VM \"a\": write disks = [\"/dev/vg0/files\"]\n\
         gateway.toml:6:5: unknown key `x` in VM \"a\": known are `name`, `policy`, `priority`, `source`, `on_fenced`\n\
         gateway.toml: `state` is missing: write state = \"/var/lib/sparesite/state\""
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let refused = Config::load(Path::new("/nonexistent/gateway.toml")).expect_err("missing");
    assert_eq!(
        refused.to_string(),
        "/nonexistent/gateway.toml: cannot read the configuration: No such file or directory (os \
         error 2); name it with --config FILE"
    );
}

#[test]
fn no_cut_of_the_file_panics() {
    for end in 0..GOOD.len() {
        let _ = parse(&GOOD[..end]);
    }
}

/// A good file with a few characters changed, cut out or doubled: a plain value or a plain error, never a panic.
#[test]
fn any_file_is_a_value_or_an_error() {
    let mut dice = 1u64;
    let mut roll = |below: usize| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % below
    };
    let odd = [
        "\"",
        "[",
        "]",
        "=",
        "{",
        "\n",
        "\0",
        "é",
        "1e999",
        "-1",
        ".",
        "99999999999999999999",
        "'",
        "#",
        "\\u0000",
    ];
    let (mut good, mut bad) = (0, 0);
    for _ in 0..3000 {
        let mut text: Vec<char> = GOOD.chars().collect();
        for _ in 0..1 + roll(4) {
            let at = roll(text.len() - 40);
            let end = at + roll(40);
            let part: Vec<char> = match roll(3) {
                0 => Vec::new(),
                1 => text[at..end].repeat(2),
                _ => odd[roll(odd.len())].chars().collect(),
            };
            let end = if roll(2) == 0 { at } else { end };
            text.splice(at..end, part);
        }
        match parse(&text.into_iter().collect::<String>()) {
            Ok(_) => good += 1,
            Err(why) => {
                assert!(why.contains("gateway.toml"), "{why}");
                bad += 1;
            }
        }
    }
    assert!(
        good > 50 && bad > 50,
        "{good} good, {bad} bad: both must occur"
    );
}
