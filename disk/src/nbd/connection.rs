//! Sessions over Unix sockets and TCP.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use super::error::NbdError;
use super::handshake::{NbdOptions, greet, list_exports, start_tls};
use super::session::Session;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdAddress {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

#[derive(Debug)]
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.read(buf),
            Self::Tcp(s) => s.read(buf),
            Self::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.write(buf),
            Self::Tcp(s) => s.write(buf),
            Self::Tls(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(s) => s.flush(),
            Self::Tcp(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

pub type NbdConnection = Session<Socket>;

fn connect_tcp(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn dial(address: &NbdAddress, timeout: Duration) -> Result<Socket, NbdError> {
    let open = || -> io::Result<Socket> {
        let timeout = Some(timeout);
        Ok(match address {
            NbdAddress::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                Socket::Unix(stream)
            }
            NbdAddress::Tcp(name) => {
                let stream = connect_tcp(name, Duration::from_secs(20))?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                Socket::Tcp(stream)
            }
        })
    };
    open().map_err(|source| NbdError::Connect {
        address: address.to_string(),
        source,
    })
}

impl NbdConnection {
    pub fn connect(address: &NbdAddress, options: &NbdOptions) -> Result<Self, NbdError> {
        let mut socket = dial(address, options.timeout)?;
        let flags = greet(&mut socket)?;
        if let Some(tls) = &options.tls {
            start_tls(&mut socket)?;
            socket = Socket::Tls(Box::new(tls.begin(socket)?));
        }
        Session::start_greeted(socket, flags, options)
    }
}

/// The names of a server's exports.
pub fn list(address: &NbdAddress, timeout: Duration) -> Result<Vec<String>, NbdError> {
    list_exports(dial(address, timeout)?)
}
