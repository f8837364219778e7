//! Against a real sshd on a loopback port with a throw-away key; where there is none, a stand-in
//! shows what does not need one.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command as Program},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;

pub struct Sshd {
    folder: TempDir,
    daemon: Child,
    pub ssh: Ssh,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// None, with words, where no sshd is installed.
pub async fn sshd() -> Option<Sshd> {
    let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
    let program = program.into_iter().find(|path| Path::new(path).exists());
    let Some(program) = program else {
        testkit::skip("sshd");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for key in ["host", "user"] {
        let made = Program::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
            .status();
        assert!(made.expect("ssh-keygen runs").success());
    }
    std::fs::copy(path("user.pub"), path("authorized")).expect("copied");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let daemon = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\n",
        path("host"),
        path("authorized"),
    );
    std::fs::write(path("sshd_config"), daemon).expect("written");
    let client = format!(
        "Port {port}\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\n\
         StrictHostKeyChecking no\nLogLevel ERROR\n",
        path("user"),
    );
    std::fs::write(path("ssh_config"), client).expect("written");
    // It wants this folder for its unprivileged half, and Debian makes it at boot.
    let _ = std::fs::create_dir_all("/run/sshd");
    let daemon = Program::new(program)
        .args(["-D", "-e", "-f", &path("sshd_config")])
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd starts");
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut ssh = Ssh::new("pve1", "127.0.0.1");
    ssh.options = vec!["-F".into(), path("ssh_config")];
    Some(Sshd {
        folder,
        daemon,
        ssh,
    })
}

/// Answers every client with its own words.
fn echo(socket: PathBuf) {
    let listener = UnixListener::bind(socket).expect("binds");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buf = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut buf).await {
                let _ = stream.write_all(&buf[..length]).await;
            }
        }
    });
}

#[tokio::test]
async fn sockets_of_a_host_are_reached_through_ssh_and_programs_run_there() {
    let Some(sshd) = sshd().await else { return };
    let host = Host::Ssh(sshd.ssh.clone());
    let [there, later] = ["there.sock", "later.sock"].map(|name| sshd.folder.path().join(name));
    echo(there.clone());
    let sockets = [there.clone(), later.clone()];
    let mut reach = host.reach(&sockets).await.expect("reached");
    echo(later.clone());
    for socket in [&there, &later] {
        let here = reach.here(socket);
        assert_ne!(&here, socket);
        let folder = here.parent().expect("a folder").metadata().expect("there");
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        let mut stream = UnixStream::connect(here).await.expect("connects");
        stream.write_all(b"hello").await.expect("written");
        let mut buf = [0; 5];
        stream.read_exact(&mut buf).await.expect("read");
        assert_eq!(&buf, b"hello");
    }
    assert_eq!(reach.ended(), None);
    let words = host
        .run("printf", &["%s|%s", "two words", "it's $HOME"])
        .await;
    assert_eq!(words.expect("runs"), "two words|it's $HOME");
    let error = host
        .run("sh", &["-c", "echo no >&2; exit 4"])
        .await
        .expect_err("fails");
    assert_eq!(error.to_string(), "sh on pve1 failed: exit status: 4: no");
    let here = reach.here(&there);
    drop(reach);
    assert!(!here.exists());
}

#[tokio::test]
async fn a_host_frees_its_sockets_when_nothing_more_is_heard_of_us() {
    let Some(sshd) = sshd().await else { return };
    let socket = sshd.folder.path().join("one-client.sock");
    let listener = UnixListener::bind(&socket).expect("binds");
    let host = Host::Ssh(sshd.ssh.clone());
    let reach = host.reach(std::slice::from_ref(&socket)).await;
    let mut reach = reach.expect("reached");
    let _ours = UnixStream::connect(reach.here(&socket))
        .await
        .expect("connects");
    let (mut served, _) = listener.accept().await.expect("a client");
    let mut byte = [0; 1];
    // Longer than a silence is borne: the beat is heard.
    let ended = timeout(Duration::from_secs(17), served.read(&mut byte)).await;
    assert!(ended.is_err() && reach.ended().is_none(), "{ended:?}");
    // As where the link breaks: nothing more comes, and nothing is closed.
    let ssh = reach.tunnel.as_ref().and_then(|tunnel| tunnel.ssh.id());
    let ssh = Pid::from_raw(ssh.expect("it runs") as i32).expect("a process");
    kill_process(ssh, Signal::STOP).expect("stopped");
    let ended = timeout(Duration::from_secs(25), served.read(&mut byte)).await;
    assert_eq!(ended.expect("freed").expect("closed"), 0);
}

/// A stand-in for ssh.
async fn standing_in(script: &str) -> Result<Reach, HostError> {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("ssh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).expect("executable");
    let mut ssh = Ssh::new("pve1", "root@pve1.lan");
    ssh.program = program;
    Host::Ssh(ssh).reach(&["/run/a.sock".into()]).await
}

async fn ends(reach: &mut Reach) -> bool {
    for _ in 0..500 {
        if reach.ended().is_some() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn a_tunnel_that_ends_is_noticed() {
    let lives = standing_in("echo a banner; echo sparesite-ready; exec cat").await;
    let mut lives = lives.expect("reached");
    let dies = standing_in("echo sparesite-ready; read line < /dev/null; exit 255").await;
    assert!(ends(&mut dies.expect("reached")).await);
    assert_eq!(lives.ended(), None);
}

async fn unreachable(script: &str) -> String {
    standing_in(script).await.expect_err("no host").to_string()
}

#[tokio::test]
async fn a_host_that_is_not_reached_is_named_with_what_ssh_said() {
    let error = unreachable("echo 'Permission denied (publickey).' >&2; exit 255").await;
    let expected = "host pve1 cannot be reached: Permission denied (publickey).; \
                    try `ssh root@pve1.lan true`";
    assert!(error.starts_with(expected), "{error}");
    let error =
        unreachable("i=0; while [ $i -lt 5000 ]; do echo login words; i=$((i+1)); done").await;
    assert!(error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_missing_ssh_and_a_long_path_are_named() {
    let mut ssh = Ssh::new("pve1", "root@pve1.lan");
    ssh.program = "/nonexistent/ssh".into();
    let long = PathBuf::from(format!("/run/{}", "a".repeat(110)));
    let error = Host::Ssh(ssh.clone())
        .reach(&[long])
        .await
        .expect_err("too long");
    assert!(matches!(error, HostError::LongPath { .. }), "{error}");
    let error = Host::Ssh(ssh).reach(&[]).await.expect_err("no ssh");
    assert!(error.to_string().contains("openssh-client"), "{error}");
}

#[tokio::test]
async fn this_machines_sockets_are_reached_as_they_are() {
    let reach = Host::Local
        .reach(&["/run/a.sock".into()])
        .await
        .expect("here");
    assert_eq!(
        reach.here(Path::new("/run/a.sock")),
        Path::new("/run/a.sock")
    );
}
