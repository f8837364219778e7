//! nbdkit, somebody else's NBD server, and certificates for its TLS.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that shows something read-only, and ends with the test.
pub struct Nbdkit(Child);

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Nbdkit {
    pub fn is_here() -> bool {
        Path::new("/usr/bin/nbdkit").exists()
    }

    /// On a socket; `arguments` end with the plugin and its own.
    pub fn at(socket: &str, arguments: &[&str]) -> Self {
        let server = serve(&["-U", socket], arguments);
        wait(|| UnixStream::connect(socket).is_ok());
        server
    }

    /// On a port of 127.0.0.1.
    pub fn on_a_port(arguments: &[&str]) -> (Self, u16) {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let server = serve(&["-i", "127.0.0.1", "-p", &port.to_string()], arguments);
        wait(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        (server, port)
    }
}

fn serve(place: &[&str], arguments: &[&str]) -> Nbdkit {
    let mut serve = Command::new("nbdkit");
    serve.args(["-f", "-r"]).args(place).args(arguments);
    let serve = serve.stdin(Stdio::null()).stderr(Stdio::null());
    Nbdkit(serve.spawn().expect("nbdkit starts"))
}

fn wait(answers: impl Fn() -> bool) {
    let began = Instant::now();
    while !answers() {
        assert!(began.elapsed() < Duration::from_secs(20), "nbdkit starts");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `ca-cert.pem`, and certificates of a server on localhost and of a client.
pub fn certificates(folder: &Path) {
    let openssl = |line: &str| {
        let made = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(folder)
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl").success(), "{line}");
    };
    let write = |name, text| std::fs::write(folder.join(name), text).expect("written");
    write("server.ext", "subjectAltName=DNS:localhost,IP:127.0.0.1");
    write("client.ext", "extendedKeyUsage=clientAuth");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -days 2 -subj /CN=ca -keyout ca-key.pem -out ca-cert.pem"
    ));
    for who in ["server", "client"] {
        openssl(&format!(
            "req {key} -subj /CN={who} -keyout {who}-key.pem -out {who}.csr"
        ));
        openssl(&format!(
            "x509 -req -days 2 -in {who}.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -extfile {who}.ext -out {who}-cert.pem"
        ));
    }
}
