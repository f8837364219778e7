//! A vault in memory, for tests.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::adapter::{Backend, StoreObjects};
use super::{Meter, Objects};

/// An empty vault that lives as long as its last handle.
pub fn in_memory(meter: Meter) -> Arc<dyn Objects> {
    Arc::new(StoreObjects::new(
        Arc::new(InMemory::new()),
        Backend::Memory,
        String::new(),
        "memory:".to_owned(),
        meter,
    ))
}
