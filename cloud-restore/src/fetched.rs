//! What a command asked of the store, as JSON.

use serde::Serialize;
use vault_store::objects::Usage;

/// What the store was asked for, and gave.
#[derive(Debug, Serialize)]
pub struct FetchedJson {
    pub bytes: u64,
    pub requests: u64,
    pub get: u64,
    pub list: u64,
    pub head: u64,
    pub put: u64,
}

impl FetchedJson {
    pub fn of(usage: Usage) -> Self {
        FetchedJson {
            bytes: usage.bytes_received,
            requests: usage.requests(),
            get: usage.get,
            list: usage.list,
            head: usage.head,
            put: usage.put,
        }
    }
}
