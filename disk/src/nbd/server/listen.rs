//! Where a server listens: a Unix socket or a TCP port.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::nbd::NbdAddress;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct ListenError {
    address: String,
    why: String,
}

/// A listening socket. A Unix socket's file goes with it.
#[derive(Debug)]
pub enum NbdListener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
    Tcp(TcpListener),
}

/// Who connected.
pub(super) struct Connection {
    pub stream: Stream,
    pub peer: String,
}

/// Without descriptors or memory an accept fails at once, again and again.
const PAUSE: Duration = Duration::from_millis(100);

impl NbdListener {
    /// A Unix socket may be used by this user alone; a dead one in its place is removed.
    pub async fn bind(address: &NbdAddress) -> Result<Self, ListenError> {
        let failed = |why: String| ListenError {
            address: address.to_string(),
            why,
        };
        match address {
            NbdAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                listener
                    .map(NbdListener::Tcp)
                    .map_err(|e| failed(e.to_string()))
            }
            NbdAddress::Unix(path) => {
                remove_dead(path).map_err(failed)?;
                let listener = UnixListener::bind(path).map_err(|e| failed(e.to_string()))?;
                let bound = NbdListener::Unix {
                    listener,
                    path: path.clone(),
                };
                let private = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(path, private).map_err(|e| failed(e.to_string()))?;
                Ok(bound)
            }
        }
    }

    /// Where it really is: a port 0 has become a number.
    pub fn address(&self) -> String {
        match self {
            NbdListener::Unix { path, .. } => path.display().to_string(),
            NbdListener::Tcp(listener) => {
                let address = listener.local_addr();
                address.map_or_else(|_| "?".into(), |address| address.to_string())
            }
        }
    }

    pub(super) async fn accept(&self) -> Connection {
        loop {
            let accepted = match self {
                NbdListener::Unix { listener, path } => {
                    let peer = path.display().to_string();
                    listener.accept().await.map(|(stream, _)| Connection {
                        stream: Stream::Unix(stream),
                        peer,
                    })
                }
                NbdListener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                    // Replies are written whole: waiting for more only delays them.
                    let _ = stream.set_nodelay(true);
                    if let Err(error) = keep_alive(&stream) {
                        tracing::warn!(%peer, %error, "if this client vanishes, nobody will notice");
                    }
                    Connection {
                        stream: Stream::Tcp(stream),
                        peer: peer.to_string(),
                    }
                }),
            };
            match accepted {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A client may be silent for days and there; one whose machine is gone is let go of after two minutes.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    sockopt::set_socket_keepalive(stream, true)
}

impl Drop for NbdListener {
    fn drop(&mut self) {
        if let NbdListener::Unix { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket that nobody listens on any more: what a killed server leaves.
fn remove_dead(path: &Path) -> Result<(), String> {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err("something else is there; name another path".into());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err("another program listens there; name another path, or end it".into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|e| format!("a dead socket cannot be removed: {e}"))
        }
        Err(e) => Err(e.to_string()),
    }
}

/// Either kind of socket.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

macro_rules! either {
    ($self:ident, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            Stream::Unix($stream) => $do,
            Stream::Tcp($stream) => $do,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(context, into))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
