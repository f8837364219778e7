//! Opening a recovery point: what `sparesite-restore` does before it fetches the first pack.
use crate::site::Site;
use anyhow::Result;
use serde_json::Value;
pub fn open(_site: &Site, _ids: u64) -> Result<Value> { anyhow::bail!("read API pending") }
