//! Azure Blob by Azurite.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::http1::{self, Message};
use crate::server::{Server, cache, find, unique};

/// Azurite's well-known account and key, published in its documentation.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// An Azurite blob server; its data goes with it.
#[derive(Debug)]
pub struct AzuriteServer {
    server: Server,
}

impl AzuriteServer {
    /// Finds `azurite-blob` by SPARESITE_AZURITE, `tests/.cache/node_modules` or PATH.
    pub fn start() -> Self {
        let program = find(
            "SPARESITE_AZURITE",
            "azurite-blob",
            &[cache().join("node_modules/.bin/azurite-blob")],
        );
        let arguments = |directory: &std::path::Path| {
            let location = directory.join("data").display().to_string();
            let arguments = [
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                "0",
                "--disableTelemetry",
                "--skipApiVersionCheck",
                "--silent",
                "--location",
                &location,
            ];
            arguments.map(str::to_owned).to_vec()
        };
        Self {
            server: Server::start(&program, arguments),
        }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub const ACCOUNT: &str = ACCOUNT;

    pub fn account(&self) -> &'static str {
        ACCOUNT
    }

    /// The environment of a program that uses this server.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env_through(self.server.port)
    }

    /// The same through a proxy on another port.
    pub fn env_through(&self, port: u16) -> BTreeMap<String, String> {
        Self::fixed_env(port)
    }

    /// The same without any server, for one that only a proxy plays.
    pub fn fixed_env(port: u16) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        let pairs = [
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", endpoint),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// A new container of its own.
    pub fn create_container(&self) -> String {
        let container = unique("sparesite");
        let response = self.send("PUT", &container, &[("restype", "container")]);
        assert_eq!(
            response.status(),
            201,
            "container {container}: {response:?}"
        );
        container
    }

    /// One bodyless request past everything that is tested, signed with the account key.
    pub fn send(&self, method: &str, path: &str, query: &[(&str, &str)]) -> Message {
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
            .expect("a date");
        let version = "2021-12-02";
        let mut resource = format!("/{ACCOUNT}/{ACCOUNT}/{path}");
        let mut sorted = query.to_vec();
        sorted.sort();
        for (name, value) in &sorted {
            resource.push_str(&format!("\n{name}:{value}"));
        }
        // Shared Key: the verb, eleven standard headers (none here), x-ms-*, the resource.
        let headers = format!("x-ms-date:{date}\nx-ms-version:{version}");
        let to_sign = format!("{method}\n\n\n\n\n\n\n\n\n\n\n\n{headers}\n{resource}");
        let key = BASE64_STANDARD.decode(KEY).expect("the key is base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signature = BASE64_STANDARD.encode(hmac::sign(&key, to_sign.as_bytes()));
        let query: Vec<_> = sorted.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let target = format!("/{ACCOUNT}/{path}?{}", query.join("&"));
        let request = Message {
            start: format!("{method} {target} HTTP/1.1"),
            headers: vec![
                ("x-ms-date".to_owned(), date),
                ("x-ms-version".to_owned(), version.to_owned()),
                (
                    "Authorization".to_owned(),
                    format!("SharedKey {ACCOUNT}:{signature}"),
                ),
            ],
            body: Vec::new(),
        };
        http1::exchange(self.server.port, &request).expect("Azurite answers")
    }
}
