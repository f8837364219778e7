//! What the tests stand on: real store servers on loopback, a proxy that counts and
//! breaks, and a terminal that goes away. Blocking code on threads, so that it serves any test.

pub mod azurite;
pub mod http1;
pub mod nbdkit;
pub mod proxy;
pub mod s3_server;
mod server;
mod skip;
pub mod strict_aws;
mod terminal;

pub use azurite::AzuriteServer;
pub use proxy::{CountingProxy, ProxyCounts, ProxyFault};
pub use s3_server::S3Server;
pub use skip::skip;
pub use strict_aws::StrictAws;
pub use terminal::Terminal;
