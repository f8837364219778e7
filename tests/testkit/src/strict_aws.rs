//! EC2, EBS direct and EventBridge Scheduler by the strict stand-in (`tests/strict-aws`), with S3 beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::http1::{self, Message};
use crate::server::{Server, cache, find};

/// The programs' own; `account.py` has another.
const KEY: &str = "AKIATESTTESTTESTTEST";

/// A stand-in; what it holds goes with it.
#[derive(Debug)]
pub struct StrictAws {
    server: Server,
}

fn python() -> PathBuf {
    find(
        "SPARESITE_PYTHON",
        "python3",
        &[cache().join("venv/bin/python")],
    )
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../strict-aws")
        .join(name)
}

/// What the judge of IAM documents finds that the role of cloud-restore may do: `service:Action`.
fn proven() -> BTreeSet<String> {
    let path = script("../terraform/iam/must-allow.json");
    let text = std::fs::read(&path).expect("the table of rights");
    let rows: Vec<Value> = serde_json::from_slice(&text).expect("rows");
    let own = rows.iter().filter(|row| row["who"] == "cloud-restore");
    let actions = own.flat_map(|row| match &row["action"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    });
    let names = actions.map(|action| action.as_str().expect("a name").to_owned());
    names.collect()
}

impl StrictAws {
    pub fn start() -> Self {
        let arguments = [
            script("serve.py").display().to_string(),
            "--port".into(),
            "0".into(),
        ];
        StrictAws {
            server: Server::start(&python(), |_| arguments.to_vec()),
        }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    /// The environment of a program that uses this account, S3 included.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env_through(self.server.port)
    }

    /// The same, by way of a proxy on another port.
    pub fn env_through(&self, port: u16) -> BTreeMap<String, String> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test-secret".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// A new bucket.
    pub fn create_bucket(&self, name: &str) {
        let response = self.send("PUT", &format!("/{name}"), b"");
        assert_eq!(response.status(), 200, "bucket {name}: {response:?}");
    }

    fn send(&self, method: &str, target: &str, body: &[u8]) -> Message {
        let request = Message {
            start: format!("{method} {target} HTTP/1.1"),
            headers: Vec::new(),
            body: body.to_vec(),
        };
        http1::exchange(self.server.port, &request).expect("the stand-in answers")
    }

    /// The stand-in's own control: `requests`, `violations`, `faults`, `inventory?…`, `reset`.
    pub fn control(&self, method: &str, what: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let response = self.send(method, &format!("/strict/{what}"), body.as_bytes());
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status(), 200, "{what}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// From now on requests fail as these say (see `tests/strict-aws/README.md`).
    pub fn faults(&self, faults: Value) {
        self.control("POST", "faults", Some(faults));
    }

    pub fn no_faults(&self) {
        self.control("DELETE", "faults", None);
    }

    /// All that departed from the vendor's models; and each action that the programs asked for, and no row of the table of
    /// rights (`tests/terraform/iam`) proves the role of cloud-restore to have. S3 is left out: it is the gateway's too.
    pub fn violations(&self) -> Vec<Value> {
        let found = self.control("GET", "violations", None);
        let requests = self.control("GET", "requests", None);
        let ours = requests.as_array().expect("a list").iter();
        let ours = ours.filter(|request| request["key"] == KEY && request["service"] != "s3");
        let asked = ours.map(|request| {
            let word = |name: &str| request[name].as_str().expect("a name").to_owned();
            format!("{}:{}", word("service"), word("action"))
        });
        let asked: BTreeSet<String> = asked.collect();
        let proven = proven();
        let unproven = asked.difference(&proven).map(
            |action| json!({"action": action, "what": "not of cloud-restore in must-allow.json"}),
        );
        let found = found.as_array().expect("a list").iter().cloned();
        found.chain(unproven).collect()
    }

    /// Requests of an action, in their order: parameters and how each was answered.
    pub fn requests(&self, action: &str) -> Vec<Value> {
        let all = self.control("GET", "requests", None);
        let of = |request: &&Value| request["action"] == json!(action);
        all.as_array()
            .expect("a list")
            .iter()
            .filter(of)
            .cloned()
            .collect()
    }

    /// What a volume made from a snapshot reads.
    pub fn volume(&self, snapshot: &str) -> Vec<u8> {
        self.send("GET", &format!("/strict/disk/{snapshot}"), b"")
            .body
    }

    /// How many things of each kind exist that have this tag.
    pub fn count(&self, tag: &str, value: &str) -> usize {
        let found = self.control("GET", &format!("inventory?tag={tag}&value={value}"), None);
        let kinds = found.as_object().expect("kinds").values();
        kinds.map(|all| all.as_array().map_or(0, Vec::len)).sum()
    }

    /// `tests/strict-aws/account.py`: the account, made and read by the vendor's client.
    pub fn account(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(python());
        command
            .arg(script("account.py"))
            .arg(self.url())
            .args(arguments);
        let ran = command.output().expect("python runs");
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success(),
            "{arguments:?}: {text}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        serde_json::from_str(&text).expect("JSON")
    }
}
