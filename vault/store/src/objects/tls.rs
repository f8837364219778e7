//! One TLS implementation for the process: rustls on ring.

use std::sync::Once;

/// Idempotent; a provider that the program installed before stays.
pub(super) fn install_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
