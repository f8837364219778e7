//! S3 by moto, over real HTTP.

use std::collections::BTreeMap;

use crate::http1::{self, Message};
use crate::server::{Server, cache, find, unique};

/// A moto server; its objects live in memory and go with it.
#[derive(Debug)]
pub struct S3Server {
    server: Server,
}

impl S3Server {
    /// Finds `moto_server` by SPARESITE_MOTO, `tests/.cache/venv` or PATH.
    pub fn start() -> Self {
        let program = find(
            "SPARESITE_MOTO",
            "moto_server",
            &[cache().join("venv/bin/moto_server")],
        );
        let arguments = ["-H", "127.0.0.1", "-p", "0"];
        let arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        Self {
            server: Server::start(&program, |_| arguments.clone()),
        }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
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
        let pairs = [
            ("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{port}")),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// A new bucket of its own.
    pub fn create_bucket(&self) -> String {
        let bucket = unique("sparesite");
        let response = self.send("PUT", &format!("/{bucket}"), b"");
        assert_eq!(response.status(), 200, "bucket {bucket}: {response:?}");
        bucket
    }

    /// Past everything that is tested: without credentials, which moto allows by default.
    pub fn send(&self, method: &str, target: &str, body: &[u8]) -> Message {
        let request = Message {
            start: format!("{method} {target} HTTP/1.1"),
            headers: Vec::new(),
            body: body.to_vec(),
        };
        http1::exchange(self.server.port, &request).expect("the S3 server answers")
    }

    /// From now on requests must be signed by a key that moto's IAM knows: none.
    pub fn require_credentials(&self) {
        let response = self.send("POST", "/moto-api/reset-auth", b"0");
        assert_eq!(response.status(), 200, "{response:?}");
    }
}
