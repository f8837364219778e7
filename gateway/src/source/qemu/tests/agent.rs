//! A stand-in for a guest's agent: it answers by script and remembers what it was asked.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

#[derive(Debug, Default)]
pub struct State {
    pub frozen: bool,
    pub asked: Vec<String>,
    /// As a guest without an agent: nothing is answered.
    pub silent: bool,
    /// So many thaws are not answered, nor done.
    pub deaf_to_thaws: usize,
    /// As Windows does after ten seconds.
    pub thaws_by_itself: bool,
    pub refuses_freeze: bool,
    /// Of its file systems.
    pub fsinfo: Value,
    /// Told when a freeze comes; waited for before it is answered.
    pub at_freeze: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
}

#[derive(Clone, Default)]
pub struct StandIn(Arc<Mutex<State>>);

impl StandIn {
    pub fn new(state: State) -> Self {
        StandIn(Arc::new(Mutex::new(state)))
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("no panic"))
    }

    pub fn asked(&self) -> Vec<String> {
        self.with(|state| state.asked.clone())
    }

    /// One client at a time, as QEMU's socket.
    pub fn serve(&self, socket: PathBuf) {
        let (listener, agent) = (UnixListener::bind(socket).expect("binds"), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                agent.talk(stream).await;
            }
        });
    }

    async fn talk(&self, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read);
        let mut line = Vec::new();
        while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
            let start = line.iter().position(|byte| *byte != 0xff).unwrap_or(0);
            let request: Value = serde_json::from_slice(&line[start..]).expect("JSON");
            line.clear();
            if request["execute"] == "guest-fsfreeze-freeze"
                && let Some((came, go_on)) = self.with(|state| state.at_freeze.take())
            {
                let _ = came.send(());
                let _ = go_on.await;
            }
            if let Some(answer) = self.answer(&request) {
                let _ = write.write_all(&answer).await;
            }
        }
    }

    fn answer(&self, request: &Value) -> Option<Vec<u8>> {
        let command = request["execute"].as_str().expect("a command").to_owned();
        self.with(|state| {
            if state.silent {
                return None;
            }
            if command == "guest-sync-delimited" {
                let mut answer = vec![0xff];
                answer.extend(
                    json!({ "return": request["arguments"]["id"] })
                        .to_string()
                        .bytes(),
                );
                answer.push(b'\n');
                return Some(answer);
            }
            state.asked.push(command.clone());
            let value = match command.as_str() {
                "guest-get-osinfo" => json!({ "return": { "id": "debian" } }),
                "guest-get-fsinfo" => json!({ "return": state.fsinfo }),
                "guest-fsfreeze-freeze" if state.refuses_freeze => {
                    json!({ "error": { "class": "GenericError", "desc": "no" } })
                }
                "guest-fsfreeze-freeze" => {
                    state.frozen = !state.thaws_by_itself;
                    json!({ "return": 2 })
                }
                "guest-fsfreeze-thaw" => {
                    if state.deaf_to_thaws > 0 {
                        state.deaf_to_thaws -= 1;
                        return None;
                    }
                    let count = if state.frozen { 2 } else { 0 };
                    state.frozen = false;
                    json!({ "return": count })
                }
                "guest-fsfreeze-status" if state.frozen => json!({ "return": "frozen" }),
                "guest-fsfreeze-status" => json!({ "return": "thawed" }),
                other => panic!("{other}"),
            };
            Some(format!("{value}\n").into_bytes())
        })
    }
}
