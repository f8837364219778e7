//! What QEMU is asked for a description, in one batch.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::source::{
    qemu::view::BlockView,
    qmp::{QmpError, Session},
};

const MACHINE: [&str; 4] = ["type", "firmware", "smp", "rtc-time"];
const DEVICE: [&str; 11] = [
    "type",
    "serial",
    "bootindex",
    "legacy-addr",
    "parent_bus",
    "channel",
    "scsi-id",
    "lun",
    "unit",
    "chardev",
    "share-rw",
];

/// The answers, unjudged.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub version: (u64, u64),
    pub view: BlockView,
    /// Properties of the machine.
    pub machine: Value,
    /// Properties of the devices on the command line and of the disks', by QOM path.
    pub devices: BTreeMap<String, Value>,
    /// PCI class by device id.
    pub pci_classes: BTreeMap<String, u64>,
    pub flash_is_secure: bool,
    pub memory: Value,
    pub cpu_count: u64,
    pub cpu_type: String,
    pub tpm: Value,
    pub network: String,
    /// Our clock, in seconds since 1970.
    pub now_seconds: i64,
}

impl Facts {
    /// `now_seconds` is our clock: the guest's is told from it.
    pub async fn ask(session: &mut Session, now_seconds: i64) -> Result<Self, QmpError> {
        let view = BlockView::of(session).await?;
        let mut paths: Vec<String> = view
            .devices
            .iter()
            .filter_map(|d| d.qom_path.clone())
            .collect();
        for folder in ["/machine/peripheral", "/machine/peripheral-anon"] {
            let children = session
                .try_ask("qom-list", json!({ "path": folder }))
                .await?;
            let children = children.unwrap_or_default();
            for child in children.as_array().into_iter().flatten() {
                let is_device = child["type"]
                    .as_str()
                    .is_some_and(|t| t.starts_with("child<"));
                if let (true, Some(name)) = (is_device, child["name"].as_str()) {
                    paths.push(format!("{folder}/{name}"));
                }
            }
        }
        let mut devices = BTreeMap::new();
        for path in paths {
            let properties = properties(session, &path, &DEVICE).await?;
            devices.insert(path, properties);
        }
        let flash = json!({ "path": "/machine/system.flash0", "property": "secure" });
        let cpus = session.run("query-cpus-fast", json!({})).await?;
        let cpus = cpus.as_array().cloned().unwrap_or_default();
        let cpu = cpus
            .first()
            .map_or_else(Value::default, |cpu| cpu["qom-path"].clone());
        let cpu = json!({ "path": cpu, "property": "type" });
        let network = json!({ "command-line": "info network" });
        let tpms = session
            .try_ask("query-tpm", json!({}))
            .await?
            .unwrap_or_default();
        let text = |value: Option<Value>| {
            let value = value.unwrap_or_default();
            value.as_str().unwrap_or_default().to_owned()
        };
        Ok(Facts {
            version: session.version(),
            machine: properties(session, "/machine", &MACHINE).await?,
            devices,
            pci_classes: pci_classes(session).await?,
            flash_is_secure: session.try_ask("qom-get", flash).await? == Some(json!(true)),
            memory: session.run("query-memory-size-summary", json!({})).await?,
            cpu_count: cpus.len() as u64,
            cpu_type: text(session.try_ask("qom-get", cpu).await?),
            tpm: tpms[0].clone(),
            network: text(session.try_ask("human-monitor-command", network).await?),
            now_seconds,
            view,
        })
    }
}

/// Those of the properties that the object has.
async fn properties(session: &mut Session, path: &str, names: &[&str]) -> Result<Value, QmpError> {
    let mut found = Map::new();
    for name in names {
        let arguments = json!({ "path": path, "property": name });
        if let Some(value) = session.try_ask("qom-get", arguments).await? {
            found.insert((*name).to_owned(), value);
        }
    }
    Ok(Value::Object(found))
}

async fn pci_classes(session: &mut Session) -> Result<BTreeMap<String, u64>, QmpError> {
    let mut classes = BTreeMap::new();
    let answer = session
        .try_ask("query-pci", json!({}))
        .await?
        .unwrap_or_default();
    let mut buses: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    while let Some(bus) = buses.pop() {
        for device in bus["devices"].as_array().into_iter().flatten() {
            let class = device["class_info"]["class"].as_u64();
            if let (Some(id), Some(class)) = (device["qdev_id"].as_str(), class) {
                classes.insert(id.to_owned(), class);
            }
            buses.extend(device.get("pci_bridge"));
        }
    }
    Ok(classes)
}
