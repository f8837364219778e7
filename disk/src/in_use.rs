//! placeholder
pub enum InUse { No, Yes(String), Unknown(String) }
pub fn in_use(_: &std::path::Path) -> InUse { InUse::Unknown(String::new()) }
