//! Why an NBD exchange failed.

use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NbdError {
    #[error(
        "cannot connect to NBD server {address}: {source}; check that it runs and listens there"
    )]
    Connect { address: String, source: io::Error },
    #[error("the NBD server closed the connection during {during}")]
    Closed { during: &'static str },
    #[error(
        "the NBD server did not answer in time during {during}; check the server and the network"
    )]
    Timeout { during: &'static str },
    #[error("the NBD connection failed during {during}: {source}")]
    Io {
        during: &'static str,
        source: io::Error,
    },
    /// The server broke the protocol; nothing more is read from this connection.
    #[error("the NBD server broke the protocol: {0}")]
    Protocol(String),
    #[error("the NBD server refused {option}: {reason}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
    Refused {
        option: &'static str,
        reason: &'static str,
        message: String,
    },
    #[error("the NBD server failed to {command} {length} bytes at offset {offset}: {reason}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
    Command {
        command: &'static str,
        offset: u64,
        length: u64,
        errno: u32,
        reason: &'static str,
        message: String,
    },
    #[error("TLS with the NBD server failed: {0}")]
    Tls(String),
    #[error("the NBD export does not support {0}")]
    Unsupported(&'static str),
    #[error(
        "{length} bytes at offset {offset} are not aligned to the NBD server's block size of {block_bytes}"
    )]
    Unaligned {
        offset: u64,
        length: u64,
        block_bytes: u32,
    },
}

impl NbdError {
    pub(crate) fn from_io(during: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => Self::Closed { during },
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout { during },
            _ => Self::Io { during, source },
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }

    /// Whether the connection can still be used: the server answered in form.
    pub fn connection_survives(&self) -> bool {
        matches!(
            self,
            Self::Command { .. } | Self::Unsupported(_) | Self::Unaligned { .. }
        )
    }
}
