//! What `plan check` asks of the cloud. Nothing is made there: rights are asked by dry runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recovery_cloud::aws::{
    Aws, BootMode, ImageRequest, InstanceRequest, MadeImage, MappedVolume, Tagged,
};
use recovery_cloud::{CloudError, Kind};
use recovery_plan::cloud::{
    Answer, CloudFacts, Holder, KeyFacts, May, Questions, Right, SubnetFacts, Unasked,
};
use recovery_plan::judge::Row;
use recovery_plan::{Plan, PlannedVm, Subnet};

use crate::failover::world::{KIND_TAG, RUN_TAG, VM_TAG};

/// Of one question. An answer comes within a second where there is a way to the service at all; a hundred thousand snapshots are
/// counted in 100 pages.
const PATIENCE: Duration = Duration::from_secs(45);
/// Dry runs ask as this run, which there never is.
const NO_RUN: &str = "plan-check";

/// What came of asking.
pub enum Asked {
    /// There is nobody to ask as.
    NoCredentials,
    /// None of it was answered.
    Failed(CloudError),
    Facts(Box<CloudFacts>),
}

/// `rows` are those of the plan, judged.
pub async fn ask(plan: &Plan, rows: &[Row]) -> Asked {
    let aws = match Aws::open(&plan.region).await {
        Ok(aws) => aws,
        Err(error) if error.kind == Kind::Credentials => return Asked::NoCredentials,
        Err(error) => return Asked::Failed(error),
    };
    if !aws.has_credentials().await {
        return Asked::NoCredentials;
    }
    let running = patient(aws.running()).await;
    match running {
        Err(error) if is_of_all(&error) => Asked::Failed(error),
        running => Asked::Facts(Box::new(facts(&aws, plan, rows, running).await)),
    }
}

async fn patient<T>(asked: impl Future<Output = Result<T, CloudError>>) -> Result<T, CloudError> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = format!("no answer within {} s", PATIENCE.as_secs());
            Err(CloudError::new("ask AWS", Kind::Late, "", why))
        }
    }
}

/// What no other question would be answered with either.
fn is_of_all(error: &CloudError) -> bool {
    matches!(error.kind, Kind::Credentials | Kind::Clock) || error.is_transient()
}

async fn facts(
    aws: &Aws,
    plan: &Plan,
    rows: &[Row],
    running: Result<BTreeMap<String, u64>, CloudError>,
) -> CloudFacts {
    let asked = Questions::of(plan, rows);
    let types: Vec<&str> = asked.types.iter().copied().collect();
    let subnets: Vec<&str> = asked.subnets.iter().copied().collect();
    let groups: Vec<&str> = asked.security_groups.iter().copied().collect();
    let run_now = running.iter().flat_map(BTreeMap::keys).map(String::as_str);
    let all_types: BTreeSet<&str> = types.iter().copied().chain(run_now).collect();
    let all_types: Vec<&str> = all_types.into_iter().collect();
    let quotas = asked.quotas.iter().map(|quota| async move {
        let what = format!("the quota of {}", quota.name);
        let answer = patient(aws.quota(quota.service, quota.code)).await;
        (
            quota.code,
            told(answer, &what, "servicequotas:GetServiceQuota"),
        )
    });
    let interfaces = async {
        match asked.addresses {
            true => patient(aws.interfaces(&subnets)).await,
            false => Ok(Vec::new()),
        }
    };
    let (vcpus, offered, seen, groups, interfaces, volumes, snapshots, quotas, key, rights) = futures::join!(
        patient(aws.vcpus(&all_types)),
        patient(aws.offered(&types)),
        patient(aws.subnets(&subnets)),
        patient(aws.security_groups(&groups)),
        interfaces,
        patient(aws.volumes_gib()),
        patient(aws.snapshots()),
        futures::future::join_all(quotas),
        key(aws, asked.key),
        patient(rights(aws, plan)),
    );
    let interfaces = told(
        interfaces,
        "addresses in use",
        "ec2:DescribeNetworkInterfaces",
    );
    let seen = told(seen, "subnets", "ec2:DescribeSubnets");
    let types_and_sizes = "instance types and their vCPUs";
    CloudFacts {
        vcpus: told(vcpus, types_and_sizes, "ec2:DescribeInstanceTypes"),
        running: told(running, "instances that run", "ec2:DescribeInstances"),
        offered: told(
            offered,
            "what zones offer",
            "ec2:DescribeInstanceTypeOfferings",
        ),
        subnets: seen.map(|all| all.into_iter().map(subnet_facts).collect()),
        security_groups: told(groups, "security groups", "ec2:DescribeSecurityGroups"),
        holders: interfaces.map(holders),
        volumes_gib: told(volumes, "volumes that there are", "ec2:DescribeVolumes"),
        snapshots: told(
            snapshots,
            "snapshots that there are",
            "ec2:DescribeSnapshots",
        ),
        quotas: quotas.into_iter().collect(),
        key,
        rights: told(rights, "images, for dry runs", "ec2:DescribeImages"),
    }
}

fn told<T>(answer: Result<T, CloudError>, what: &str, right: &'static str) -> Answer<T> {
    answer.map_err(|error| Unasked {
        what: what.to_owned(),
        why: error.to_string(),
        right: (error.kind == Kind::Denied).then_some(right),
    })
}

fn subnet_facts((id, seen): (String, recovery_cloud::aws::SubnetSeen)) -> (String, SubnetFacts) {
    let facts = SubnetFacts {
        vpc: seen.vpc,
        zone: seen.zone,
        range: seen.range.parse().ok(),
        free: seen.free,
    };
    (id, facts)
}

fn holders(
    interfaces: Vec<recovery_cloud::aws::Interface>,
) -> BTreeMap<(String, std::net::Ipv4Addr), Holder> {
    let mut holders = BTreeMap::new();
    for interface in interfaces {
        let tags = interface.tags.iter();
        let vm = tags.clone().find(|(name, _)| name == VM_TAG);
        let holder = Holder {
            interface: interface.id.clone(),
            vm: vm.map(|(_, value)| value.clone()),
        };
        for address in interface.addresses {
            holders.insert((interface.subnet.clone(), address), holder.clone());
        }
    }
    holders
}

async fn key(aws: &Aws, arn: Option<&str>) -> Option<Answer<Option<KeyFacts>>> {
    let answer = patient(aws.key(arn?)).await;
    let answer = told(answer, "the key of the volumes", "kms:DescribeKey");
    let facts = |key: recovery_cloud::aws::KeyState| KeyFacts {
        state: key.state,
        encrypts: key.encrypts,
    };
    Some(answer.map(|key| key.map(facts)))
}

/// Of what a run made: the role may touch nothing else, so that of nothing else a dry run could tell its rights.
async fn rights(aws: &Aws, plan: &Plan) -> Result<Vec<Right>, CloudError> {
    let images = aws.images_with_tag(RUN_TAG).await?;
    let Some(image) = images.first() else {
        return Ok(Vec::new());
    };
    let mut rights = Vec::new();
    for (subnet, vm) in first_in_each(plan) {
        let of_vm = images.iter().find(|image| is_of(image, &vm.name));
        let image = of_vm.unwrap_or(image);
        let twin = subnet.test.as_deref().map(|test| (test, "test"));
        for (id, kind) in std::iter::once((subnet.id.as_str(), "failover")).chain(twin) {
            let on = match kind {
                "test" => format!(
                    "in a rehearsal, in the twin of subnet {} ({id})",
                    subnet.name
                ),
                _ => format!("in a failover, in subnet {} ({id})", subnet.name),
            };
            let answer = aws.may_run(&start(vm, image, id, kind)).await;
            rights.push(right("ec2:RunInstances", on, answer));
        }
    }
    for kind in ["test", "failover"] {
        let answer = aws.may_register(&register(image, kind)).await;
        rights.push(right(
            "ec2:RegisterImage",
            format!("in a {kind}, an image of a run's snapshot"),
            answer,
        ));
    }
    let answer = aws.may_remove(Tagged::Images, &image.id).await;
    rights.push(right(
        "ec2:DeregisterImage",
        format!("image {}", image.id),
        answer,
    ));
    let answer = aws.may_remove(Tagged::Snapshots, &image.snapshot).await;
    rights.push(right(
        "ec2:DeleteSnapshot",
        format!("snapshot {}", image.snapshot),
        answer,
    ));
    let run = image.tags.iter().find(|(name, _)| name == RUN_TAG);
    let run = run.map_or("", |(_, value)| value.as_str());
    for (kind, action, what) in [
        (Tagged::Instances, "ec2:TerminateInstances", "instance"),
        (Tagged::Volumes, "ec2:DeleteVolume", "volume"),
    ] {
        let made = aws.tagged_of(kind, &[(RUN_TAG, run)]).await?;
        if let Some(id) = made.first() {
            let answer = aws.may_remove(kind, id).await;
            rights.push(right(action, format!("{what} {id}"), answer));
        }
    }
    Ok(rights)
}

/// Each subnet that a VM is put into, with the first such VM.
fn first_in_each(plan: &Plan) -> impl Iterator<Item = (&Subnet, &PlannedVm)> {
    plan.subnets.iter().filter_map(|subnet| {
        let mut vms = plan.vms.iter();
        let vm = vms.find(|vm| vm.subnet.contains(&subnet.name))?;
        Some((subnet, vm))
    })
}

fn is_of(image: &MadeImage, vm: &str) -> bool {
    let mut tags = image.tags.iter();
    tags.any(|(name, value)| name == VM_TAG && value == vm)
}

fn right(action: &'static str, on: String, answer: Result<(), CloudError>) -> Right {
    let may = match answer {
        Ok(()) => May::Yes,
        Err(error) if error.kind == Kind::Denied => May::No(error.to_string()),
        Err(error) => May::Untold(error.to_string()),
    };
    Right { action, on, may }
}

fn tags(kind: &str) -> Vec<(String, String)> {
    let tags = [(RUN_TAG, NO_RUN), (KIND_TAG, kind)];
    tags.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// As a failover asks for it, but for the address, which may be in use.
fn start(vm: &PlannedVm, image: &MadeImage, subnet: &str, kind: &str) -> InstanceRequest {
    InstanceRequest {
        token: format!("{NO_RUN}-{kind}-{subnet}"),
        image: image.id.clone(),
        instance_type: vm.instance.first().cloned().unwrap_or_default(),
        subnet: subnet.to_owned(),
        security_groups: match kind {
            "test" => Vec::new(),
            _ => vm.security_groups.clone(),
        },
        address: None,
        tags: tags(kind),
    }
}

fn register(image: &MadeImage, kind: &str) -> ImageRequest {
    ImageRequest {
        name: format!("sparesite-{NO_RUN}-{kind}"),
        description: "a dry run".into(),
        boot_mode: BootMode::LegacyBios,
        tpm: false,
        volumes: vec![MappedVolume {
            snapshot: image.snapshot.clone(),
            kind: "gp3".into(),
            iops: None,
            throughput: None,
        }],
        tags: tags(kind),
    }
}
