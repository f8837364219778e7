//! Against monitors that are busy, broken or hostile.

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
};

use super::*;

const GREETING: &str =
    r#"{"QMP": {"version": {"qemu": {"major": 10, "minor": 0}}, "capabilities": []}}"#;

/// Seen to come first, where it happens as the client is accepted.
const EVENT: &str = r#"{"event": "JOB_STATUS_CHANGE", "timestamp": {}}"#;

/// One client at a time: each line of it is answered by `answers` in turn.
fn monitor(answers: &'static [&'static str]) -> (TempDir, Monitor) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("qmp");
    let listener = UnixListener::bind(&socket).expect("binds");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let greets = format!("{EVENT}\r\n{GREETING}\r\n");
            let _ = write.write_all(greets.as_bytes()).await;
            for answer in answers {
                if let Ok(Some(_)) = lines.next_line().await {
                    let _ = write.write_all(format!("{answer}\r\n").as_bytes()).await;
                }
            }
        }
    });
    let short = Monitor {
        answer: Duration::from_millis(500),
        ..Monitor::at(socket)
    };
    (folder, short.patience(Duration::from_millis(500)))
}

const CAPABLE: &str = r#"{"return": {}, "id": 1}"#;

async fn answer(answers: &'static [&'static str]) -> Result<Value, QmpError> {
    let (_folder, monitor) = monitor(answers);
    let mut session = monitor.session().await.expect("greeted");
    assert_eq!(session.version(), (10, 0));
    session.run("query-status", json!({})).await
}

#[tokio::test]
async fn events_and_older_answers_are_passed_over() {
    let event = r#"{"event": "STOP", "timestamp": {}}
{"return": "late", "id": 1}
{"return": "ours", "id": 2}"#;
    let answers: &'static [&str] = Box::leak(Box::new([CAPABLE, event]));
    assert_eq!(answer(answers).await.expect("answered"), "ours");
}

#[tokio::test]
async fn a_refusal_has_qemus_words() {
    let refused = r#"{"id": 2, "error": {"class": "GenericError", "desc": "no such node"}}"#;
    let answers: &'static [&str] = Box::leak(Box::new([CAPABLE, refused]));
    let error = answer(answers).await.expect_err("refused");
    assert_eq!(error.refusal(), Some("no such node"));
    assert_eq!(error.to_string(), "QEMU refused query-status: no such node");
}

#[tokio::test]
async fn silence_ends_and_nonsense_is_an_error() {
    let silent = answer(&[CAPABLE]).await.expect_err("no answer");
    assert!(
        matches!(
            silent,
            QmpError::Lost {
                source: LineError::Closed,
                ..
            }
        ),
        "{silent}"
    );
    for nonsense in ["not JSON", "{", "\u{0}"] {
        let answers: &'static [&str] = Box::leak(Box::new([CAPABLE, nonsense]));
        let error = answer(answers).await.expect_err("nonsense");
        assert!(
            matches!(
                error,
                QmpError::Lost {
                    source: LineError::NoJson(_),
                    ..
                }
            ),
            "{error}"
        );
    }
    // Answers to others only.
    let answers = &[CAPABLE, "[]", "7", r#"{"return": 1, "id": 99}"#];
    assert!(matches!(answer(answers).await, Err(QmpError::Lost { .. })));
}

#[tokio::test]
async fn a_line_without_end_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("qmp");
    let listener = UnixListener::bind(&socket).expect("binds");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        while stream.write_all(&[b' '; 1 << 16]).await.is_ok() {}
    });
    let endless = Monitor::at(socket).session().await;
    let error = endless.err().expect("too long").to_string();
    assert!(error.contains("over 16 MiB"), "{error}");
}

#[tokio::test]
async fn a_busy_monitor_is_waited_for_and_then_named() {
    let (_folder, monitor) = monitor(&[CAPABLE, CAPABLE]);
    let first = monitor.session().await.expect("greeted");
    let error = monitor.session().await.err().expect("busy").to_string();
    assert!(error.contains("another one holds it"), "{error}");
    let patient = monitor.clone().patience(Duration::from_secs(30));
    let waiting = tokio::spawn(async move { patient.session().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    waiting.await.expect("ends").expect("greeted");
}

#[tokio::test]
async fn a_monitor_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = Monitor::at(folder.path().join("qmp")).session().await;
    let error = missing.err().expect("missing").to_string();
    assert!(error.contains("is the VM running"), "{error}");
    let socket = folder.path().join("other");
    let listener = UnixListener::bind(&socket).expect("binds");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let _ = stream.write_all(b"{\"hello\": 1}\n").await;
    });
    let error = Monitor::at(socket).session().await.err().expect("no QEMU");
    assert!(matches!(error, QmpError::NoMonitor { .. }), "{error}");
}
