//! Whether what is to be started lives still: a domain controller that knows nothing of its copy, or whatever has the address.
//!
//! Asked from where the run is, over whatever leads to the site. That nobody answers proves nothing where no way leads there:
//! then no way leads from the recovery VM there either.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use futures::future::join_all;
use recovery_cloud::aws::Tagged;
use recovery_plan::living;
use recovery_plan::run::{Run, StepKind, StepState};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::probe::ldap;
use super::{Context, StepError, Words};
use crate::failover::world::{RUN_TAG, World};

/// A connection is asked for again after a second, and after three.
const ANSWERS: Duration = Duration::from_secs(5);

/// Where, and who seems to be there.
type Found = (SocketAddrV4, &'static str);

pub async fn look(context: Context, vm: &str) -> Result<Words, StepError> {
    let world = &context.world;
    let found = look_for(world, vm).await?;
    if !found.is_empty() {
        return Err(StepError::new(refusal(vm, &found)));
    }
    let asked = living(&world.plan, world.vm(vm)?);
    let said = match (world.vm(vm)?.domain_controller, asked.controllers.len()) {
        (false, _) => "nothing answers at its address".to_owned(),
        (true, 0) => "no domain controller is known on site".to_owned(),
        (true, asked) => format!("none of {asked} domain controllers answers"),
    };
    Ok(Words::from([("said".to_owned(), said)]))
}

/// What answers already when a run goes on, of all VMs whose step is still to come: who has to decide something by it decides
/// once, and not hours later for each group.
pub async fn ahead(world: &World, run: &Run) -> Option<String> {
    let open = |state: &StepState| !matches!(state, StepState::Done(_) | StepState::Skipped(_));
    let vms = run
        .steps
        .iter()
        .zip(&run.states)
        .filter_map(|(step, state)| match &step.kind {
            StepKind::Alone { vm } if open(state) => Some(vm.as_str()),
            _ => None,
        });
    let looks = vms.map(|vm| async move { (vm, look_for(world, vm).await.unwrap_or_default()) });
    let mut found = join_all(looks).await;
    found.retain(|(_, found)| !found.is_empty());
    (!found.is_empty()).then(|| foretold(&found))
}

/// All but what this run started itself.
async fn look_for(world: &World, vm: &str) -> Result<Vec<Found>, StepError> {
    let asked = living(&world.plan, world.vm(vm)?);
    let controllers = join_all(asked.controllers.iter().map(|at| controller(*at)));
    let addresses = join_all(asked.addresses.iter().map(|at| answers(*at)));
    let (controllers, addresses) = futures::join!(controllers, addresses);
    let mut found: Vec<Found> = controllers.into_iter().chain(addresses).flatten().collect();
    if !found.is_empty() {
        let ours = addresses_of_the_run(world).await?;
        found.retain(|(at, _)| !ours.contains(&at.ip().to_string()));
    }
    Ok(found)
}

fn refusal(vm: &str, found: &[Found]) -> String {
    format!(
        "not started beside what lives: {}. Is that the old machine, or may it be? Shut it down, or cut the way to it, and run the \
         same command again. Surely not (it burned, and a firewall, another network, or another run's instance answers)? The same \
         command with --skip \"alone {vm}\"",
        told(found)
    )
}

fn foretold(found: &[(&str, Vec<Found>)]) -> String {
    let each = found
        .iter()
        .map(|(vm, found)| format!("{vm}: {}", told(found)));
    let skips = found
        .iter()
        .map(|(vm, _)| format!(" --skip \"alone {vm}\""));
    format!(
        "something answers where these VMs were, and they are not started beside it. {}. When their turn comes it is asked again: \
         until then shut it down, or cut the way to it. Surely not the old machines (they burned, and a firewall, another network, \
         or another run's instance answers)? Ctrl-C, and the same command with{}",
        each.collect::<Vec<_>>().join("; "),
        skips.collect::<String>()
    )
}

/// `a server answers at 10.1.0.5 (22, 443)`: each address once for each thing that is said of it.
fn told(found: &[Found]) -> String {
    let mut ports = BTreeMap::<(Ipv4Addr, &str), Vec<String>>::new();
    for (at, what) in found {
        let ports = ports.entry((*at.ip(), what)).or_default();
        ports.push(at.port().to_string());
    }
    let all = ports
        .iter()
        .map(|((ip, what), ports)| format!("{what} at {ip} ({})", ports.join(", ")));
    all.collect::<Vec<_>>().join(", ")
}

/// A directory that answers at all, whatever it says.
async fn controller(at: SocketAddrV4) -> Option<Found> {
    connects(at).await.filter(|found| *found)?;
    let said = timeout(ANSWERS, ldap::search(at, "")).await;
    let what = match said {
        Ok(Ok(_)) => "a domain controller answers",
        _ => "something listens where a domain controller would be",
    };
    Some((at, what))
}

/// Who refuses a connection lives too.
async fn answers(at: SocketAddrV4) -> Option<Found> {
    let what = match connects(at).await? {
        true => "a server answers",
        false => "a machine refuses connections",
    };
    Some((at, what))
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
async fn addresses_of_the_run(world: &World) -> Result<Vec<String>, StepError> {
    let aws = &world.aws;
    let tags = [(RUN_TAG, world.run.as_str())];
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
    fn a_refusal_says_who_and_what_to_do_and_each_address_once() {
        let at = |port| SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 5), port);
        let found = vec![
            (at(389), "a domain controller answers"),
            (at(22), "a server answers"),
            (at(443), "a server answers"),
        ];
        let who =
            "a domain controller answers at 10.1.0.5 (389), a server answers at 10.1.0.5 (22, 443)";
        let one = refusal("dc01", &found);
        for word in [who, "Shut it down", "--skip \"alone dc01\""] {
            assert!(one.contains(word), "{one}");
        }
        let all = foretold(&[("dc01", found.clone()), ("db", found)]);
        for word in [
            format!("dc01: {who}; db: {who}").as_str(),
            "with --skip \"alone dc01\" --skip \"alone db\"",
        ] {
            assert!(all.contains(word), "{all}");
        }
    }
}
