//! A site whose vault is in an account, and the account.

use std::path::Path;

use journeys::*;
use serde_json::Value;
use testkit::StrictAws;
use vault_format::kit::{Argon2idCosts, Kit, NewKit};

/// What a run's resources are tagged with.
pub const RUN_TAG: &str = "sparesite-run";

pub struct Cloud {
    pub aws: StrictAws,
    pub site: Site,
    /// Recovery and test network: ids of the VPC, its security group, its subnets.
    pub network: Value,
}

/// Each journey proves that every request was one, and that its role has the right to it.
impl Drop for Cloud {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.aws.violations(), Vec::<Value>::new());
        }
    }
}

impl Cloud {
    pub fn new() -> Self {
        let aws = StrictAws::start();
        aws.create_bucket("vault");
        let vault = Where {
            url: "s3://vault/site1".into(),
            env: aws.env(),
        };
        let site = Site::on(vault);
        opens_at_once(&site);
        let network = aws.account(&["network"]);
        Cloud { aws, site, network }
    }

    /// dc01 and db with a disk each, of which one recovery point is there.
    pub fn of_two() -> Self {
        let cloud = Cloud::new();
        let site = &cloud.site;
        for (name, seed) in [("dc01", 3), ("db", 4)] {
            make_random(&site.path(&format!("{name}.raw")), 2 * MIB, seed);
        }
        site.configure(&[
            ("dc01", &site.disks(&["dc01.raw"])),
            ("db", &site.disks(&["db.raw"])),
        ]);
        site.sync();
        cloud
    }

    /// A rehearsal that comes to its end, with findings (the guests have no operating system).
    #[track_caller]
    pub fn rehearse(&self, plan: &str) -> Value {
        let command = ["failover", plan, "--test", "--json"];
        self.site.restore(&command).exits(3).json()
    }

    /// Nothing of it is left.
    #[track_caller]
    pub fn undo(&self, run: &str) {
        self.site.restore(&["undo", run]).ok();
        assert_eq!(self.aws.count(RUN_TAG, run), 0);
    }

    /// A plan of dc01 and, after it, db; with what stands in `more` at its end.
    pub fn plan(&self, more: &str) -> String {
        let subnet = |kind: &str, place: usize| {
            self.network[kind]["subnets"][place]
                .as_str()
                .expect("an id")
                .to_owned()
        };
        let mut text = String::from(
            "name = \"whole-site\"\ncloud = \"aws\"\nregion = \"eu-central-1\"\n\
             [deadline]\nsweep = \"arn:aws:states:eu-central-1:123456789012:stateMachine:sweep\"\n\
             role = \"arn:aws:iam::123456789012:role/deadline\"\n",
        );
        for (place, zone) in ["a", "b"].into_iter().enumerate() {
            text += &format!(
                "[[subnet]]\nname = \"servers-{zone}\"\nid = \"{}\"\ntest = \"{}\"\nrange = \"10.20.{}.0/24\"\nzone = \"eu-central-1{zone}\"\n",
                subnet("recovery", place),
                subnet("test", place),
                place + 1,
            );
        }
        let group = self.network["recovery"]["security_group"]
            .as_str()
            .expect("an id");
        text += "[[group]]\nname = \"first\"\n[[group]]\nname = \"second\"\n";
        for (name, group_name) in [("dc01", "first"), ("db", "second")] {
            text += &format!(
                "[[vm]]\nname = \"{name}\"\ngroup = \"{group_name}\"\ninstance = [\"t3a.medium\", \"t3.medium\"]\n\
                 subnet = [\"servers-a\", \"servers-b\"]\nsecurity_groups = [\"{group}\"]\ntags = {{ owner = \"it\" }}\n\
                 convert = false\n", // these guests hold no program that could be run
            );
        }
        let path = self.site.path("plan.toml");
        std::fs::write(&path, text + more).expect("written");
        self.site.shown("plan.toml")
    }

    /// What has a run's tag; and how many instances, images, snapshots, volumes and network interfaces that are.
    pub fn made_by(&self, run: &str) -> (Value, [usize; 5]) {
        let state = self.aws.account(&["state", RUN_TAG, run]);
        // EC2 shows instances that ended for an hour.
        let ended = |one: &&Value| one["State"]["Name"] == "terminated";
        let count = |kind: &str| {
            let all = state[kind].as_array().expect("a list");
            all.len() - all.iter().filter(ended).count()
        };
        let kinds = [
            "instances",
            "images",
            "snapshots",
            "volumes",
            "network_interfaces",
        ];
        let counts = kinds.map(count);
        (state, counts)
    }

    /// `back` has the bytes of the site's disk, and zeroes behind its end.
    #[track_caller]
    pub fn assert_same_disk(&self, disk: &str, back: &str) {
        let length = std::fs::metadata(self.site.path(disk))
            .expect("there")
            .len();
        let file = std::fs::File::options()
            .write(true)
            .open(back)
            .expect("opens");
        file.set_len(length).expect("cut to the disk's size");
        assert_same(&self.site.path(disk), Path::new(back));
    }
}

/// The passphrase costs a second of both CPUs each time, which is what other journeys prove; here are many commands.
fn opens_at_once(site: &Site) {
    let path = site.path("kit.json");
    let text = std::fs::read(&path).expect("the kit");
    let kit = Kit::parse(&text).expect("a kit");
    let cheap = NewKit {
        vault_url: kit.vault_url.clone(),
        region: kit.region.clone(),
        vault_id: kit.vault_id,
        created: kit.created.clone(),
        vault: kit.vault.clone().unwrap_or_default(),
        keys: &kit.open(PASSPHRASE).expect("it opens"),
        salt: [1; 16],
        costs: Argon2idCosts {
            memory_kib: 64,
            iterations: 1,
            parallelism: 1,
        },
    };
    let cheap = cheap.close(PASSPHRASE).expect("it closes");
    std::fs::write(path, cheap.to_json()).expect("written");
}
