//! Whether what is to be started lives still: a domain controller that knows nothing of its copy, or whatever has the address.
//!
//! Asked from where the run is, over whatever leads to the site. That nobody answers proves nothing where no way leads there:
//! then no way leads from the recovery VM there either.

use std::net::SocketAddrV4;
use std::time::Duration;

use futures::future::join_all;
use recovery_cloud::aws::Tagged;
use recovery_plan::living;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::probe::ldap;
use super::{Context, StepError, Words};
use crate::failover::world::RUN_TAG;

/// A connection is asked for again after a second, and after three.
const ANSWERS: Duration = Duration::from_secs(5);

pub async fn look(context: Context, vm: &str) -> Result<Words, StepError> {
    let world = &context.world;
    let asked = living(&world.plan, world.vm(vm)?);
    let controllers = join_all(asked.controllers.iter().map(|at| controller(*at)));
    let addresses = join_all(asked.addresses.iter().map(|at| answers(*at)));
    let (controllers, addresses) = futures::join!(controllers, addresses);
    let mut found: Vec<(SocketAddrV4, String)> =
        controllers.into_iter().chain(addresses).flatten().collect();
    if !found.is_empty() {
        let ours = addresses_of_the_run(&context).await?;
        found.retain(|(at, _)| !ours.contains(&at.ip().to_string()));
    }
    if !found.is_empty() {
        return Err(StepError::new(refusal(vm, &found)));
    }
    let count = |asked: usize, what: &str| match asked {
        0 => format!("no {what} is known on site"),
        asked => format!("none of {asked} {what}s answers"),
    };
    Ok(Words::from([(
        "said".to_owned(),
        match world.vm(vm)?.domain_controller {
            true => count(asked.controllers.len(), "domain controller"),
            false => "nothing answers at its address".to_owned(),
        },
    )]))
}

fn refusal(vm: &str, found: &[(SocketAddrV4, String)]) -> String {
    let all: Vec<String> = found
        .iter()
        .map(|(at, what)| format!("{what} at {at}"))
        .collect();
    format!(
        "not started beside what lives: {}; shut that down, or cut the way to it, and run the same command again; or undo the \
         run; --skip \"alone {vm}\" starts it in spite of that, where a firewall on the way or another network answers, or it is \
         this VM's neighbour that another run brought up",
        all.join(", ")
    )
}

/// A directory that answers at all, whatever it says.
async fn controller(at: SocketAddrV4) -> Option<(SocketAddrV4, String)> {
    connects(at).await.filter(|found| *found)?;
    let said = timeout(ANSWERS, ldap::search(at, "")).await;
    let what = match said {
        Ok(Ok(_)) => "a domain controller answers",
        _ => "something listens where a domain controller would be",
    };
    Some((at, what.to_owned()))
}

/// Who refuses a connection lives too.
async fn answers(at: SocketAddrV4) -> Option<(SocketAddrV4, String)> {
    let what = match connects(at).await? {
        true => "a server answers",
        false => "a machine refuses connections",
    };
    Some((at, what.to_owned()))
}

/// `None`: nobody answers, or no way leads there. `false`: a connection is refused.
async fn connects(at: SocketAddrV4) -> Option<bool> {
    match timeout(ANSWERS, TcpStream::connect(at)).await {
        Ok(Ok(_)) => Some(true),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Some(false),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// What this run started has the addresses that it was given.
async fn addresses_of_the_run(context: &Context) -> Result<Vec<String>, StepError> {
    let aws = &context.world.aws;
    let tags = [(RUN_TAG, context.world.run.as_str())];
    let mut found = Vec::new();
    for instance in aws.tagged_of(Tagged::Instances, &tags).await? {
        let launched = aws.instance(&instance).await?;
        found.extend(launched.map(|launched| launched.address));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each connection with this.
    async fn listening(answer: &'static [u8]) -> SocketAddrV4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 100];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    async fn closed() -> SocketAddrV4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    /// SearchResultEntry with no attributes, SearchResultDone with success.
    const ROOT_DSE: &[u8] = b"\x30\x09\x02\x01\x01\x64\x04\x04\x00\x30\x00\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00";

    #[tokio::test]
    async fn a_directory_lives_by_its_word_or_its_port_and_a_machine_by_a_refusal() {
        let directory = listening(ROOT_DSE).await;
        let (_, what) = controller(directory).await.unwrap();
        assert_eq!(what, "a domain controller answers");
        let other = listening(b"SSH-2.0-x\r\n").await;
        let (_, what) = controller(other).await.unwrap();
        assert!(what.contains("something listens"), "{what}");
        assert_eq!(answers(other).await.unwrap().1, "a server answers");
        // A machine without a directory is no domain controller, and has the address all the same.
        let closed = closed().await;
        assert_eq!(controller(closed).await, None);
        assert!(answers(closed).await.unwrap().1.contains("refuses"));
    }

    #[tokio::test]
    async fn silence_is_no_sign_of_life() {
        // Nobody takes what waits here, and no more than two connections wait: more are answered by nothing.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let port = full.local_addr().unwrap().port();
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(500), TcpStream::connect(at)).await
        {
            waiting.push(stream);
        }
        assert_eq!((answers(at).await, controller(at).await), (None, None));
    }

    #[test]
    fn a_refusal_says_who_and_what_to_do() {
        let at = "10.1.0.5:389".parse().unwrap();
        let told = refusal("dc01", &[(at, "a domain controller answers".into())]);
        for word in [
            "10.1.0.5:389",
            "shut that down",
            "undo",
            "--skip \"alone dc01\"",
        ] {
            assert!(told.contains(word), "{told}");
        }
    }
}
