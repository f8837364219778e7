//! An NBD server: fixed newstyle handshake, structured replies, `base:allocation`, many connections, Unix sockets and
//! TCP, TLS. What it shows is an [`Export`]. Asynchronous, unlike the rest of this crate: hundreds of requests wait for
//! an object store at the same time.
//!
//! From above: [`NbdServer`] listens → `negotiate` → `transmit`; `messages` has the bytes.
//!
//! Source: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

mod export;
mod listen;
mod messages;
mod negotiate;
#[cfg(test)]
mod tests;
mod tls;
mod transmit;

pub use export::{Export, Piece, ServeError};
pub use listen::{ListenError, NbdListener};
pub use tls::TlsServer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use listen::Connection;
use negotiate::Negotiated;

/// Connections at the same time. nbdcopy opens 4, QEMU one a disk; each may have requests of 64 MiB under way.
const MOST_CONNECTIONS: usize = 64;
/// From the greeting to a chosen export, TLS included: a client that says nothing holds a connection for this long.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// One disk to be shown, by name. The first one answers to the empty name too.
#[derive(Clone)]
pub struct NamedExport {
    pub name: String,
    /// For people, in `nbdinfo`.
    pub description: String,
    pub export: Arc<dyn Export>,
}

/// What is shown, and to whom.
#[derive(Clone)]
pub struct NbdServer {
    exports: Arc<[NamedExport]>,
    /// With it, nothing but TLS is spoken.
    tls: Option<TlsServer>,
    connections: Arc<Semaphore>,
    handshake: Duration,
}

impl NbdServer {
    pub fn new(exports: Vec<NamedExport>, tls: Option<TlsServer>) -> Self {
        NbdServer {
            exports: exports.into(),
            tls,
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            handshake: HANDSHAKE,
        }
    }

    /// Serves whoever connects, until dropped; dropping it ends all connections.
    pub async fn serve(&self, listener: &NbdListener) {
        let mut open = JoinSet::new();
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else {
                return;
            };
            while open.try_join_next().is_some() {}
            let connection = listener.accept().await;
            let server = self.clone();
            open.spawn(async move {
                let peer = connection.peer.clone();
                match server.connection(connection).await {
                    Ok(()) => tracing::debug!(%peer, "the client has gone"),
                    Err(error) => tracing::warn!(%peer, %error, "an NBD connection ended"),
                }
                drop(permit);
            });
        }
    }

    async fn connection(&self, connection: Connection) -> io::Result<()> {
        let begun = Instant::now();
        let exports = &self.exports;
        let mut stream = connection.stream;
        let first = negotiate::negotiate(&mut stream, exports, self.tls.is_some(), false);
        match self.in_time(begun, first).await? {
            Negotiated::Go(chosen) => self.transmit(stream, chosen).await,
            Negotiated::Gone => Ok(()),
            Negotiated::StartTls => {
                let Some(tls) = &self.tls else { return Ok(()) };
                let second = async {
                    let mut stream = tls.accept(stream).await?;
                    let next = negotiate::options(&mut stream, exports, true, true).await?;
                    Ok((stream, next))
                };
                let (stream, next) = self.in_time(begun, second).await?;
                match next {
                    Negotiated::Go(chosen) => self.transmit(stream, chosen).await,
                    Negotiated::Gone | Negotiated::StartTls => Ok(()),
                }
            }
        }
    }

    /// Part of a handshake that began at `begun`.
    async fn in_time<T>(
        &self,
        begun: Instant,
        part: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let ended = tokio::time::timeout_at(begun + self.handshake, part).await;
        ended.unwrap_or_else(|_| {
            let seconds = self.handshake.as_secs();
            let late = format!("the handshake took more than {seconds} s");
            Err(io::Error::new(io::ErrorKind::TimedOut, late))
        })
    }

    async fn transmit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        chosen: negotiate::Chosen,
    ) -> io::Result<()> {
        let export = self.exports[chosen.export].export.clone();
        transmit::transmit(stream, export, chosen.structured, chosen.allocation).await
    }
}
