//! NBD, the protocol by which QEMU, nbdkit and hypervisors hand out disks: a
//! client of the fixed newstyle handshake with structured replies and metadata
//! contexts, and a [`server`]. `wire` is pure, `session` speaks over any byte stream, `pool` gives
//! several threads a connection each.
//!
//! Source: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

mod connection;
mod error;
mod handshake;
mod pool;
mod replies;
pub mod server;
mod session;
mod tls;
mod uri;
pub mod wire;

pub use connection::{NbdAddress, NbdConnection, list};
pub use error::NbdError;
pub use handshake::{ExportInfo, NbdOptions, list_exports};
pub use pool::NbdPool;
pub use replies::{Extent, ExtentMap};
pub use session::Session;
pub use tls::TlsClient;
pub use uri::{NbdUri, UriError, UriTls};
