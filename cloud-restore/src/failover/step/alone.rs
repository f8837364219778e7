//! Whether what is to be started lives still: a domain controller that knows nothing of its copy, or whatever has the address.
//!
//! Asked from where the run is, over whatever leads to the site. That nobody answers proves nothing where no way leads there, and
//! a way may lead there from the recovery VMs alone: where a part of the site lives, the plan names a witness that has to answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use recovery_cloud::aws::Tagged;
use recovery_plan::run::{Run, StepKind, StepState};
use recovery_plan::{Group, Plan, living};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::probe::ldap;
use super::{Context, StepError, Words};
use crate::failover::world::{RUN_TAG, World};

/// A connection is asked for again after a second, and after three.
const ANSWERS: Duration = Duration::from_secs(5);
/// So long what was asked holds; a start follows at once as a rule.
const HOLDS: SignedDuration = SignedDuration::from_mins(10);
/// When it was.
const ASKED_AT: &str = "asked_at";

/// Where, and who seems to be there.
type Found = (SocketAddrV4, &'static str);

/// What answers when a VM is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Living {
    /// Where domain controllers of the site are, its own address among them.
    controllers: Vec<Found>,
    /// At its own addresses.
    own: Vec<Found>,
}

pub async fn look(context: Context, vm: &str) -> Result<Words, StepError> {
    look_now(&context.world, vm).await
}

/// Right before a start: what was asked long ago (there was no room, the process died) is asked again; what was skipped is not.
pub async fn look_again(context: &Context, vm: &str) -> Result<(), StepError> {
    let Some(words) = context.made.get(&format!("alone {vm}")) else {
        return Ok(());
    };
    let asked: Option<Timestamp> = words.get(ASKED_AT).and_then(|at| at.parse().ok());
    let age = asked.map(|at| Timestamp::now().duration_since(at));
    match age.is_some_and(|age| age < HOLDS) {
        true => Ok(()),
        false => look_now(&context.world, vm).await.map(drop),
    }
}

async fn look_now(world: &World, vm: &str) -> Result<Words, StepError> {
    witness(&world.plan).await?;
    let mut found = look_for(world, vm).await?;
    if found != Living::default() {
        found.without(&addresses_of_the_run(world).await?);
    }
    if found != Living::default() {
        return Err(StepError::new(refusal(vm, &found)));
    }
    let asked = living(&world.plan, world.vm(vm)?);
    let said = match (world.vm(vm)?.domain_controller, asked.controllers.len()) {
        (false, _) => "nothing answers at its address".to_owned(),
        (true, asked) => format!("none of {asked} domain controllers answers"),
    };
    let words = [("said", said), (ASKED_AT, Timestamp::now().to_string())];
    Ok(words.map(|(name, word)| (name.to_owned(), word)).into())
}

/// What stands in the way already when a run goes on, of all VMs that are still to be started: who has to decide something by it
/// decides once, and not hours later for each group.
pub async fn ahead(world: &World, run: &Run) -> Vec<String> {
    let vms = still_asked(run);
    if vms.is_empty() {
        return Vec::new();
    }
    if let Err(StepError { why, .. }) = witness(&world.plan).await {
        return vec![format!("{}: {why}", vms.join(", "))];
    }
    let looks = vms
        .iter()
        .map(|vm| async move { (*vm, look_for(world, vm).await) });
    let (mut found, mut told) = (Vec::<(&str, Living)>::new(), Vec::new());
    for (vm, looked) in join_all(looks).await {
        match looked {
            Ok(living) => found.push((vm, living)),
            Err(StepError { why, .. }) => told.push(format!("{vm}: {why}")),
        }
    }
    found.retain(|(_, found)| *found != Living::default());
    if !found.is_empty() {
        // Where the cloud gives no answer, more is told than need be; the step itself asks again.
        let ours = addresses_of_the_run(world).await.unwrap_or_default();
        found.iter_mut().for_each(|(_, found)| found.without(&ours));
        found.retain(|(_, found)| *found != Living::default());
    }
    let hooks = |vm: &str| {
        let group = |group: &&Group| world.vm(vm).is_ok_and(|vm| vm.group == group.name);
        let of_group = world.plan.groups.iter().find(group);
        let of_vm = world.vm(vm).is_ok_and(|vm| !vm.before.is_empty());
        of_vm || of_group.is_some_and(|group| !group.before.is_empty())
    };
    if !found.is_empty() {
        let all: Vec<String> = found
            .iter()
            .map(|(vm, found)| foretold(vm, found, hooks(vm)))
            .collect();
        let directory = match found.iter().all(|(_, found)| found.controllers.is_empty()) {
            true => "",
            false => {
                " (a domain controller: shut down the living one, or leave its copy out of the plan, and cut no way)"
            }
        };
        told.push(format!(
            "something answers beside which VMs are not started. {}. Each is asked again when its turn comes: until then shut down \
             what lives, or cut the way to it{directory}. Only for what surely is gone (it burned, and a firewall, another network, \
             or another run's instance answers): Ctrl-C, and the same command with the option that stands with it",
            all.join(". ")
        ));
    }
    told
}

/// VMs that nobody counted as alone, and that are not started yet.
fn still_asked(run: &Run) -> Vec<&str> {
    let ended = |state: &StepState| matches!(state, StepState::Done(_) | StepState::Skipped(_));
    let is_started = |vm: &str| {
        let mut all = run.steps.iter().zip(&run.states);
        all.any(|(step, state)| {
            ended(state) && matches!(&step.kind, StepKind::Instance { vm: of } if of == vm)
        })
    };
    let all = run.steps.iter().zip(&run.states);
    all.filter_map(|(step, state)| match (&step.kind, state) {
        (StepKind::Alone { .. }, StepState::Skipped(_)) => None,
        (StepKind::Alone { vm }, _) if !is_started(vm) => Some(vm.as_str()),
        _ => None,
    })
    .collect()
}

/// Of a site that is lost in part: silence says nothing where not even that answers which lives.
async fn witness(plan: &Plan) -> Result<(), StepError> {
    match plan.site_witness {
        Some(at) if answers(at).await.is_none() => Err(StepError::new(format!(
            "whether anything lives on site cannot be told from here: the plan's `site_witness` {at} does not answer. Run the same \
             command from where a way leads to the site, or mend the way; or look yourself, and --skip \"alone VM\" for each VM that \
             surely is gone there. If nothing of the site lives any more, take `site_witness` out of the plan"
        ))),
        _ => Ok(()),
    }
}

async fn look_for(world: &World, vm: &str) -> Result<Living, StepError> {
    let asked = living(&world.plan, world.vm(vm)?);
    if world.vm(vm)?.domain_controller && asked.controllers.is_empty() {
        return Err(StepError::new(format!(
            "nobody can be asked whether a domain controller lives: the plan names no address of any. Write its `site_address`, and \
             the others' into `site_controllers`, and run the same command again; if none lives any more: the same command with \
             --skip \"alone {vm}\""
        )));
    }
    let controllers = join_all(asked.controllers.iter().map(|at| controller(*at)));
    let own = join_all(asked.addresses.iter().map(|at| answers(*at)));
    let (controllers, own) = futures::join!(controllers, own);
    Ok(Living {
        controllers: controllers.into_iter().flatten().collect(),
        own: own.into_iter().flatten().collect(),
    })
}

impl Living {
    /// What this run started has the addresses that it was given.
    fn without(&mut self, ours: &[String]) {
        let foreign = |(at, _): &Found| !ours.contains(&at.ip().to_string());
        self.controllers.retain(foreign);
        self.own.retain(foreign);
    }

    /// `a server answers at 10.1.0.5 (22, 443)`: each address once for each thing that is said of it.
    fn told(&self) -> String {
        let mut ports = BTreeMap::<(Ipv4Addr, &str), Vec<String>>::new();
        for (at, what) in self.controllers.iter().chain(&self.own) {
            let ports = ports.entry((*at.ip(), what)).or_default();
            ports.push(at.port().to_string());
        }
        let all = ports
            .iter()
            .map(|((ip, what), ports)| format!("{what} at {ip} ({})", ports.join(", ")));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// An old copy of a domain controller beside a living one spoils the domain: that is another question than whether a machine burned.
fn refusal(vm: &str, found: &Living) -> String {
    let skip = format!("the same command with --skip \"alone {vm}\"");
    let told = found.told();
    match found.controllers.is_empty() {
        false => format!(
            "not started beside what lives: {told}. While any domain controller of the domain lives, an old copy beside it spoils the \
             domain: undo the run, take {vm} out of the plan, and begin another; or shut that one down, and run the same command \
             again. Only if none lives any more (a firewall or another network answers): {skip}"
        ),
        true => format!(
            "not started beside what lives: {told}. Is that the old machine, or may it be? Shut it down, or cut the way to it, and \
             run the same command again; or undo the run. Surely not (it burned, and a firewall, another network, or another run's \
             instance answers)? {skip}"
        ),
    }
}

fn foretold(vm: &str, found: &Living, has_hooks: bool) -> String {
    let when = match found.controllers.is_empty() {
        false => "no domain controller lives any more",
        true => "it is gone",
    };
    let hooks = match has_hooks {
        true => "; its hooks run before, and may end that",
        false => "",
    };
    format!(
        "{vm}: {}{hooks} (if {when}: --skip \"alone {vm}\")",
        found.told()
    )
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
    use crate::failover::begin;
    use recovery_plan::run::{RunKind, RunPoint};
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

    /// Nobody takes what waits here, and no more than two connections wait: more are answered by nothing.
    async fn silent() -> (SocketAddrV4, Vec<TcpStream>) {
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
        // It listens as long as the test runs.
        std::mem::forget(full);
        (at, waiting)
    }

    #[tokio::test]
    async fn silence_is_no_sign_of_life() {
        let (at, _waiting) = silent().await;
        assert_eq!((answers(at).await, controller(at).await), (None, None));
    }

    #[tokio::test]
    async fn a_witness_that_is_silent_makes_silence_worth_nothing() {
        let text = |witness: SocketAddrV4| {
            format!(
                "name = \"p\"\ncloud = \"aws\"\nregion = \"eu-central-1\"\nsite_witness = \"{witness}\"\n"
            )
        };
        let plan = |at| toml::from_str::<Plan>(&text(at)).unwrap();
        // A refusal is a word, too.
        assert_eq!(witness(&plan(closed().await)).await, Ok(()));
        let (at, _waiting) = silent().await;
        let why = witness(&plan(at)).await.unwrap_err().why;
        assert!(
            why.contains("`site_witness`") && why.contains(&at.to_string()),
            "{why}"
        );
    }

    #[test]
    fn who_is_started_or_was_skipped_is_not_asked_about_any_more() {
        let vm = |name: &str| {
            format!(
                "[[vm]]\nname = \"{name}\"\ngroup = \"default\"\ninstance = [\"t3.medium\"]\nsubnet = [\"s\"]\nsite_address = \"10.1.0.9\"\n"
            )
        };
        let head = "name = \"p\"\ncloud = \"aws\"\nregion = \"eu-central-1\"\n[[subnet]]\nname = \"s\"\nid = \"subnet-1\"\n\
                    range = \"10.1.0.0/24\"\nzone = \"eu-central-1a\"\n[[group]]\nname = \"default\"\n";
        let names = ["asked", "skipped", "started", "new"];
        let text = head.to_owned() + &names.map(vm).concat();
        let point = RunPoint {
            point: "0000000001-0000000007".into(),
            disks: vec!["sda".into()],
        };
        let points = names.map(|name| (name.to_owned(), point.clone())).into();
        let event = begin::event(RunKind::Failover, None, &text, points);
        let mut run = begin::imagined(event).unwrap();
        let done = || StepState::Done(Words::new());
        for (step, state) in [
            ("alone asked", done()),
            ("alone skipped", StepState::Skipped("by hand".into())),
            ("alone started", done()),
            ("instance started", done()),
        ] {
            let at = run.steps.iter().position(|one| one.name() == step);
            run.states[at.unwrap()] = state;
        }
        // There was no room for `asked`: the site may be back by now.
        assert_eq!(still_asked(&run), ["asked", "new"]);
    }

    #[test]
    fn who_answers_is_told_with_what_to_do_and_of_a_directory_it_is_something_else() {
        let at = |last, port| SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, last), port);
        let server = Living {
            controllers: Vec::new(),
            own: vec![
                (at(5, 22), "a server answers"),
                (at(5, 443), "a server answers"),
            ],
        };
        let directory = Living {
            controllers: vec![(at(6, 389), "a domain controller answers")],
            own: Vec::new(),
        };
        let one = refusal("db", &server);
        let word = "a server answers at 10.1.0.5 (22, 443). Is that the old machine";
        assert!(
            one.contains(word) && one.contains("--skip \"alone db\""),
            "{one}"
        );
        // That the one machine burned is no reason to start it beside another.
        let two = refusal("dc01", &directory);
        let word = "a domain controller answers at 10.1.0.6 (389). While any";
        assert!(two.contains(word) && !two.contains("burned"), "{two}");
        assert_eq!(
            foretold("db", &server, true),
            "db: a server answers at 10.1.0.5 (22, 443); its hooks run before, and may end that (if it is gone: --skip \"alone db\")"
        );
        assert_eq!(
            foretold("dc01", &directory, false),
            "dc01: a domain controller answers at 10.1.0.6 (389) (if no domain controller lives any more: --skip \"alone dc01\")"
        );
        // What the run itself started is nobody else.
        let mut ours = server.clone();
        ours.without(&["10.1.0.5".to_owned()]);
        assert_eq!(ours, Living::default());
    }
}
