//! Each kind against a small server on loopback, through what step `serves` calls for it.
//!
//! Where the clock is paused, tokio moves it on as soon as nobody has anything to do: what waits ten minutes ends at once. So
//! there nothing may depend on an answer that is under way.

use super::*;
use tokio::net::{TcpListener, UdpSocket};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn probe(text: &str) -> Probe {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Of a VM on loopback whose DNS and LDAP listen there.
fn asked(dns: u16, ldap: u16) -> Asked<'static> {
    Asked {
        run: "r1",
        kind: "test",
        vm: "web",
        address: HERE,
        dns,
        ldap,
    }
}

/// Asks once and no more: a second try would be after the probe's time.
async fn once_of(asked: &Asked<'_>, probe_text: &str) -> Result<String, String> {
    until_it_holds(asked, &probe(&format!("{probe_text}\nwait = \"1s\""))).await
}

/// A server that answers each connection with the next of these, the last for ever.
async fn says(answers: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1000];
            let _ = stream.read(&mut request).await;
            let answer = answers.get(number).or(answers.last());
            let _ = stream.write_all(answer.unwrap()).await;
        }
    });
    port
}

async fn nobody() -> u16 {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn tcp_holds_where_a_port_is_open() {
    let open = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = open.local_addr().unwrap().port();
    let vm = asked(0, 0);
    assert_eq!(
        once_of(&vm, &format!("tcp = {port}")).await.unwrap(),
        "connects"
    );
    drop(open);
    let why = once_of(&vm, &format!("tcp = {port}")).await.unwrap_err();
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn http_holds_with_a_status_below_400() {
    let http = async |answer: &[u8]| {
        let port = says(vec![answer.to_vec()]).await;
        once_of(&asked(0, 0), &format!("http = \"{port}/health\"")).await
    };
    assert_eq!(
        http(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap(),
        "HTTP/1.1 200 OK"
    );
    assert!(http(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_ok());
    assert!(http(b"HTTP/1.0 302 Found\r\n\r\n").await.is_ok());
    for (answer, why) in [
        (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], "404"),
        (b"HTTP/1.1 500 Broken\r\n\r\n", "500"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "503"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "100"),
        (b"SSH-2.0-x\r\n", "no HTTP"),
        (b"", "no HTTP"),
    ] {
        let said = http(answer).await.unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}

/// A DNS server that knows `known.example`, says of `gone.example` that it is none (NXDOMAIN), and of others nothing. A stray
/// answer to another question comes before each of its own.
async fn dns_server() -> u16 {
    let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            let question = &question[..length];
            let asks = |name: &[u8]| question[12..].starts_with(name);
            // Response, recursion desired and available (RFC 1035, section 4.1.1); 3 is NXDOMAIN.
            let (flags, answers) = match () {
                () if asks(b"\x05known\x07example\0") => (0x8180_u16, 1_u16),
                () if asks(b"\x04gone\x07example\0") => (0x8183, 0),
                () => continue,
            };
            let mut answer = question.to_vec();
            answer[2..4].copy_from_slice(&flags.to_be_bytes());
            answer[6..8].copy_from_slice(&answers.to_be_bytes());
            if answers == 1 {
                // The name of the question, A, IN, 60 s, four bytes: 10.20.1.7.
                answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\x14\x01\x07");
            }
            let mut stray = answer.clone();
            stray[0] ^= 0xff;
            stray[3] = 0x82;
            socket.send_to(&stray, from).await.unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn dns_holds_where_the_server_knows_the_name() {
    let vm = asked(dns_server().await, 0);
    assert!(once_of(&vm, "dns = \"known.example\"").await.is_ok());
    let why = once_of(&vm, "dns = \"gone.example\"").await.unwrap_err();
    assert!(why.contains("no such name"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn dns_that_is_silent_does_not_hold() {
    let vm = asked(dns_server().await, 0);
    let began = Instant::now();
    let why = once_of(&vm, "dns = \"other.example\"").await.unwrap_err();
    assert!(why.contains("no answer within 10s"), "{why}");
    assert_eq!(began.elapsed().as_secs(), TRY.as_secs());
}

/// What a directory answers to a search for one entry (RFC 4511, sections 4.5.2 and 4.1.9): the entry of the base, and the end.
const ENTRY: &[u8] = b"\x30\x09\x02\x01\x01\x64\x04\x04\x00\x30\x00";
const DONE: &[u8] = b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00";
/// Its result is 32, noSuchObject.
const NONE: &[u8] = b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x20\x04\x00\x04\x00";

#[tokio::test]
async fn ldap_holds_where_the_entry_is_told() {
    let ldap = async |base: &str, answer: Vec<u8>| {
        let port = says(vec![answer]).await;
        once_of(&asked(0, port), &format!("ldap = \"{base}\"")).await
    };
    assert_eq!(ldap("", [ENTRY, DONE].concat()).await.unwrap(), "answers");
    let why = ldap("dc=corp", NONE.to_vec()).await.unwrap_err();
    assert!(why.contains("no such entry"), "{why}");
    let why = ldap("", b"SSH-2.0-x\r\n".to_vec()).await.unwrap_err();
    assert!(why.contains("no LDAP"), "{why}");
    let why = once_of(&asked(0, nobody().await), "ldap = \"\"").await;
    assert!(why.is_err(), "{why:?}");
}

#[tokio::test]
async fn a_command_holds_by_its_exit_code_and_is_told_of_whom() {
    let vm = asked(0, 0);
    assert_eq!(once_of(&vm, "command = [\"true\"]").await.unwrap(), "");
    let why = once_of(&vm, "command = [\"false\"]").await.unwrap_err();
    assert!(why.contains("exit status: 1"), "{why}");
    let told = r#"command = ["sh", "-c", "echo $SPARESITE_RUN $SPARESITE_KIND $SPARESITE_VM $SPARESITE_ADDRESS"]"#;
    assert_eq!(once_of(&vm, told).await.unwrap(), "r1 test web 127.0.0.1");
    let why = once_of(&vm, "command = [\"/no/such/program\"]").await;
    assert!(why.unwrap_err().contains("No such file"));
}

#[tokio::test]
async fn what_does_not_hold_is_asked_again_until_it_does() {
    let (busy, well) = (b"HTTP/1.1 503 Busy\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n");
    let port = says(vec![busy.to_vec(), well.to_vec()]).await;
    let began = Instant::now();
    let held = until_it_holds(&asked(0, 0), &probe(&format!("http = \"{port}\""))).await;
    assert_eq!(held.unwrap(), "HTTP/1.1 200 OK");
    assert!(began.elapsed() >= PAUSE);
}

/// By a command that is not there, which is known without waiting for anybody.
#[tokio::test(start_paused = true)]
async fn its_time_ends_and_the_last_answer_is_told() {
    for (wait, seconds, words) in [("\nwait = \"1m\"", 60, "1m"), ("", 600, "10m")] {
        let probe = probe(&format!("command = [\"/no/such/program\"]{wait}"));
        let began = Instant::now();
        let why = until_it_holds(&asked(0, 0), &probe).await.unwrap_err();
        assert_eq!(
            why,
            format!("it does not hold after {words}: No such file or directory (os error 2)")
        );
        let took = began.elapsed().as_secs();
        assert!(
            (seconds - PAUSE.as_secs()..=seconds).contains(&took),
            "{took}"
        );
    }
}
