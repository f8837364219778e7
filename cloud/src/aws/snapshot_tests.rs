//! The stream against a server that is silent now and then: what a stand-in that answers everything cannot show.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

use super::*;

const PATIENCE: Duration = Duration::from_millis(500);

/// Blocks that differ, every third one empty.
struct Made(u64);

#[async_trait]
impl Blocks for Made {
    fn size_bytes(&self) -> u64 {
        self.0 * BLOCK_BYTES
    }

    async fn read(&self, blocks: std::ops::Range<u64>) -> Result<Vec<Option<Bytes>>, String> {
        let block = |index: u64| {
            (!index.is_multiple_of(3))
                .then(|| Bytes::from(vec![index as u8 + 1; BLOCK_BYTES as usize]))
        };
        Ok(blocks.map(block).collect())
    }
}

/// What came: index and first byte. Of blocks that it was silent about, the first time, it took nothing.
#[derive(Default)]
struct Server {
    taken: Mutex<BTreeSet<(u64, u8)>>,
    silent_about: Mutex<BTreeSet<u64>>,
}

impl Server {
    fn start(silent_about: impl IntoIterator<Item = u64>) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Server {
            silent_about: Mutex::new(silent_about.into_iter().collect()),
            ..Server::default()
        });
        let own = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                std::thread::spawn(move || own.talk(&stream));
            }
        });
        (server, url)
    }

    fn talk(&self, stream: &TcpStream) -> Option<()> {
        let mut from = BufReader::new(stream);
        loop {
            let (mut start, mut length) = (String::new(), 0);
            from.read_line(&mut start).ok().filter(|count| *count > 0)?;
            loop {
                let mut line = String::new();
                from.read_line(&mut line).ok()?;
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            from.read_exact(&mut body).ok()?;
            let block = start.split("/blocks/").nth(1);
            let block = block.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            if let Some(index) = block {
                if self.silent_about.lock().unwrap().remove(&index) {
                    // Until the other side has had enough.
                    let _ = from.read(&mut [0]);
                    return None;
                }
                self.taken.lock().unwrap().insert((index, body[0]));
            }
            let answer = match block.is_some() || length == 0 {
                true => "{}",
                false => r#"{"SnapshotId":"snap-1","BlockSize":524288,"Status":"pending"}"#,
            };
            let length = answer.len();
            let head = "HTTP/1.1 201 Created\r\ncontent-type: application/json";
            write!(
                &mut &*stream,
                "{head}\r\ncontent-length: {length}\r\n\r\n{answer}"
            )
            .ok()?;
        }
    }
}

fn aws(url: &str) -> Aws {
    let credentials = Credentials::new("AKIA", "secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .build();
    Aws::of(&config, "eu-central-1", 1e6, PATIENCE).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_nobody_answers_is_sent_again() {
    let silent = [1, 2, 10, 40, 43, 95];
    let (server, url) = Server::start(silent);
    let aws = aws(&url);
    let request = SnapshotRequest {
        token: "t".into(),
        size_bytes: 100 * BLOCK_BYTES,
        description: "disk".into(),
        tags: Vec::new(),
        volume_key: None,
    };
    let mark = aws.start_snapshot(&request).await.unwrap();
    let (marks, _seen) = watch::channel(mark);
    let told = AtomicU64::new(0);
    let tell = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    aws.fill_snapshot(Arc::new(Made(100)), &marks, tell)
        .await
        .unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 100 * BLOCK_BYTES);
    let wanted: BTreeSet<(u64, u8)> = (0..100)
        .filter(|index: &u64| !index.is_multiple_of(3))
        .map(|index| (index, index as u8 + 1))
        .collect();
    assert_eq!(*server.taken.lock().unwrap(), wanted);
    assert!(
        server.silent_about.lock().unwrap().is_empty(),
        "it was silent"
    );
    let mark = marks.borrow().clone();
    assert_eq!((mark.next, mark.put), (100, wanted.len() as u64));
}

/// An encrypted volume is written up to its whole GiB: none of that is the disk's.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_behind_a_disk_is_not_told_as_its_bytes() {
    let (server, url) = Server::start([]);
    let blocks = GIB / BLOCK_BYTES;
    let words = [
        ("snapshot", "snap-1".to_owned()),
        ("next", (blocks - 2).to_string()),
        ("put", (blocks - 2).to_string()),
        ("zeroes", "true".to_owned()),
        ("aggregate", Aggregate::default().to_hex()),
    ];
    let words = words.map(|(name, word)| (name.to_owned(), word)).into();
    let mark = Mark::from_words(&words).unwrap();
    let (marks, _seen) = watch::channel(mark);
    let told = AtomicU64::new(0);
    let tell = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    aws(&url)
        .fill_snapshot(Arc::new(Made(5)), &marks, tell)
        .await
        .unwrap();
    let zeroes = BTreeSet::from([(blocks - 2, 0), (blocks - 1, 0)]);
    assert_eq!(*server.taken.lock().unwrap(), zeroes);
    assert_eq!(told.load(Ordering::Relaxed), 0);
}

/// A line that takes nothing is an error of its kind, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_told_as_being_late() {
    let (_server, url) = Server::start([7]);
    let aws = aws(&url);
    let call = Call {
        service: "ebs",
        method: Method::PUT,
        url: format!("{url}/snapshots/snap-1/blocks/7"),
        headers: Vec::new(),
        body: Bytes::from_static(&[1; 16]),
        digest: None,
        timeout: PATIENCE,
        lane: 0,
        attempted: "put block 7".into(),
    };
    let late = aws.0.http.once(&call, refusal).await.unwrap_err();
    assert_eq!(late.kind, Kind::Late, "{late}");
}
