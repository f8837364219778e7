//! A proxy before a store server: counts what passes, and breaks what it is told to.

use std::collections::VecDeque;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::http1::{self, Message};

/// What passed, as the server saw it: also what was answered by a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyCounts {
    /// `METHOD target status`, in order of arrival; status 0 if no answer went back.
    pub requests: Vec<String>,
    pub request_body_bytes: u64,
    pub response_body_bytes: u64,
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum ProxyFault {
    /// Nothing: the request passes.
    Pass,
    /// Answered here, the server sees nothing.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// The server does it, and the connection breaks before the answer.
    LoseAnswer,
    /// The answer's body breaks off after so many bytes.
    CutBody(usize),
    /// One bit in the middle of the answer's body is another one.
    FlipBit,
    /// Neither passes nor is answered for so long; then the connection closes.
    Hang(Duration),
}

impl ProxyFault {
    pub fn status(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<ProxyCounts>,
    faults: Mutex<VecDeque<ProxyFault>>,
    closed: AtomicBool,
    down: AtomicBool,
}

/// Listens on a free loopback port until it is dropped.
#[derive(Debug)]
pub struct CountingProxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl CountingProxy {
    /// Before a server on this machine; port 0 if only faults answer.
    pub fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if for_thread.closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = for_thread.clone();
                thread::spawn(move || serve(client, server_port, &shared));
            }
        });
        Self { port, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The fault of the next request that has none yet.
    pub fn next(&self, fault: ProxyFault) {
        lock(&self.shared.faults).push_back(fault);
    }

    /// No fault is left for what comes.
    pub fn clear(&self) {
        lock(&self.shared.faults).clear();
    }

    /// While it is down, every connection is closed before anything passes.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    pub fn counts(&self) -> ProxyCounts {
        lock(&self.shared.counts).clone()
    }

    /// What passed since the last call.
    pub fn take_counts(&self) -> ProxyCounts {
        std::mem::take(&mut *lock(&self.shared.counts))
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees the flag.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn serve(client: TcpStream, server_port: u16, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    while let Some(request) = http1::read(&mut reader, false, false)? {
        if shared.down.load(Ordering::SeqCst) {
            return client.shutdown(Shutdown::Both);
        }
        let fault = lock(&shared.faults).pop_front();
        let fault = fault.unwrap_or(ProxyFault::Pass);
        lock(&shared.counts).request_body_bytes += request.body.len() as u64;
        let status = match answer(&request, server_port, &fault)? {
            Some(response) => {
                deliver(&client, &request, &response, &fault, shared)?;
                response.status()
            }
            None => 0,
        };
        if status == 0 || matches!(fault, ProxyFault::CutBody(_)) {
            record(shared, &request, status);
            return client.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// Counted before it is written, so that a client that has its answer finds it counted.
fn record(shared: &Shared, request: &Message, status: u16) {
    let mut words = request.start.split(' ');
    let (method, target) = (words.next(), words.next());
    let line = format!(
        "{} {} {status}",
        method.unwrap_or_default(),
        target.unwrap_or_default()
    );
    lock(&shared.counts).requests.push(line);
}

fn answer(request: &Message, port: u16, fault: &ProxyFault) -> io::Result<Option<Message>> {
    match fault {
        ProxyFault::Answer {
            status,
            headers,
            body,
        } => Ok(Some(Message {
            start: format!("HTTP/1.1 {status} Injected"),
            headers: headers.clone(),
            body: body.clone().into_bytes(),
        })),
        ProxyFault::Hang(time) => {
            thread::sleep(*time);
            Ok(None)
        }
        ProxyFault::LoseAnswer => {
            http1::exchange(port, request)?;
            Ok(None)
        }
        ProxyFault::Pass | ProxyFault::CutBody(_) | ProxyFault::FlipBit => {
            let mut response = http1::exchange(port, request)?;
            response.start = response.start.replacen("HTTP/1.0", "HTTP/1.1", 1);
            Ok(Some(response))
        }
    }
}

fn deliver(
    mut client: &TcpStream,
    request: &Message,
    response: &Message,
    fault: &ProxyFault,
    shared: &Shared,
) -> io::Result<()> {
    let mut response = response.clone();
    response.remove("connection");
    if request.method() == "HEAD" {
        response.body.clear();
    } else {
        response.set("content-length", response.body.len().to_string());
    }
    let middle = response.body.len() / 2;
    if let (ProxyFault::FlipBit, Some(byte)) = (fault, response.body.get_mut(middle)) {
        *byte ^= 1;
    }
    if let ProxyFault::CutBody(bytes) = fault {
        response.body.truncate(*bytes);
    } else {
        record(shared, request, response.status());
    }
    lock(&shared.counts).response_body_bytes += response.body.len() as u64;
    response.write(&mut client)?;
    client.flush()
}
