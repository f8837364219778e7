//! Clients that say nothing, or are gone.

use async_trait::async_trait;
use bytes::Bytes;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::listen::Stream;
use super::*;
use crate::nbd::{Extent, NbdAddress};

struct Empty;

#[async_trait]
impl Export for Empty {
    fn size_bytes(&self) -> u64 {
        4096
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_now(&self, _: u64, length: u32) -> Option<Result<Vec<Piece>, ServeError>> {
        Some(Ok(vec![Piece::Zeroes(length)]))
    }

    async fn read(&self, _: u64, length: u32) -> Result<Vec<Piece>, ServeError> {
        Ok(vec![Piece::Zeroes(length)])
    }

    async fn write(&self, _: u64, _: Bytes) -> Result<(), ServeError> {
        Ok(())
    }

    async fn write_zeroes(&self, _: u64, _: u64) -> Result<(), ServeError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), ServeError> {
        Ok(())
    }

    async fn prefetch(&self, _: u64, _: u64) {}

    async fn extents(&self, _: u64, length: u64) -> Result<Vec<Extent>, ServeError> {
        Ok(vec![Extent { length, flags: 0 }])
    }
}

fn server() -> NbdServer {
    let export = NamedExport {
        name: "sda".into(),
        description: String::new(),
        export: Arc::new(Empty),
    };
    NbdServer::new(vec![export], None)
}

#[tokio::test]
async fn a_client_that_chooses_nothing_is_let_go_of_and_one_that_chose_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = NbdListener::bind(&NbdAddress::Unix(path.clone()))
        .await
        .unwrap();
    let server = NbdServer {
        handshake: Duration::from_millis(300),
        ..server()
    };
    let room = server.connections.clone();
    tokio::spawn(async move { server.serve(&listener).await });

    let mut chose = UnixStream::connect(&path).await.unwrap();
    chose.write_all(&[0, 0, 0, 3]).await.unwrap();
    chose
        .write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0")
        .await
        .unwrap();
    let mut silent = Vec::new();
    for _ in 1..MOST_CONNECTIONS {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    for stream in &mut silent {
        // It is greeted; then nothing comes until the end.
        let mut greeting = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), async {
            stream.read_to_end(&mut greeting).await
        });
        ended.await.expect("it is let go of").unwrap();
        assert_eq!(greeting.len(), 18);
    }
    // All connections were taken: that others come in shows that their places are free again.
    let mut next = UnixStream::connect(&path).await.unwrap();
    next.read_exact(&mut [0; 18]).await.unwrap();

    assert!(room.available_permits() <= MOST_CONNECTIONS - 2);
    chose.read_exact(&mut [0; 18 + 10]).await.unwrap();
    let read_a_block = b"\x25\x60\x95\x13\0\0\0\0COOKIE!!\0\0\0\0\0\0\0\0\0\0\x10\0";
    chose.write_all(read_a_block).await.unwrap();
    let mut reply = [0; 16 + 4096];
    chose.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply[8..16], b"COOKIE!!");
}

#[tokio::test]
async fn a_client_on_another_machine_is_asked_now_and_then_whether_it_is_there() {
    let address = NbdAddress::Tcp("127.0.0.1:0".into());
    let listener = NbdListener::bind(&address).await.unwrap();
    let _client = TcpStream::connect(listener.address()).await.unwrap();
    match listener.accept().await.stream {
        Stream::Tcp(stream) => {
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            let idle = sockopt::tcp_keepidle(&stream).unwrap();
            assert!(idle <= Duration::from_secs(60), "{idle:?}");
        }
        Stream::Unix(_) => panic!("it came by TCP"),
    }
}
