//! A recovery VM is created and started: where there is room for it.

use std::net::Ipv4Addr;

use recovery_cloud::aws::{InstanceRequest, Launched, Tagged};
use recovery_cloud::{CloudError, Kind};
use recovery_plan::given_address;
use recovery_plan::run::RunKind;
use recovery_plan::{PlannedVm, Subnet};

use super::{Context, StepError, Words, alone, donor};
use crate::failover::world::{RUN_TAG, VM_TAG};

/// Noted before a donor is started with the VM's disks: the instance.
const STARTED: &str = "started";

/// A type in a subnet, in the order in which they are tried: the type that was wanted most in all its subnets, then the next.
fn candidates<'a>(context: &'a Context, vm: &'a PlannedVm) -> Vec<(&'a str, &'a Subnet)> {
    let subnets: Vec<&Subnet> = vm
        .subnet
        .iter()
        .filter_map(|name| context.world.plan.subnet(name))
        .collect();
    let is_there =
        |subnet: &&&Subnet| context.world.kind == RunKind::Failover || subnet.test.is_some();
    let subnets: Vec<&Subnet> = subnets.iter().filter(is_there).copied().collect();
    let of = |kind: &'a String| subnets.iter().map(move |subnet| (kind.as_str(), *subnet));
    vm.instance.iter().flat_map(of).collect()
}

/// Where another type or subnet may help.
fn helps(error: &CloudError) -> bool {
    matches!(
        error.kind,
        Kind::NoCapacity | Kind::NotOffered | Kind::Quota
    )
}

pub async fn start(mut context: Context, name: &str) -> Result<Words, StepError> {
    let world = context.world.clone();
    let vm = world.vm(name)?;
    let source = Source::of(&context, name)?;
    let noted = context.notes.get("generation");
    let mut generation: u32 = noted.and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut refused = Vec::new();
    // What an attempt before this one started is the VM, whatever the plan says now.
    if let Some(launched) = started(&context, name).await? {
        match adopt(&mut context, name, &launched, &source).await? {
            Ok(running) => return Ok(words(&running, &source.image)),
            Err(why) => {
                generation += 1;
                refused.push(why);
            }
        }
    }
    let all: Vec<(String, Subnet)> = candidates(&context, vm)
        .into_iter()
        .map(|(kind, subnet)| (kind.to_owned(), subnet.clone()))
        .collect();
    // Whatever runs already is not asked about.
    alone::look_again(&context, name).await?;
    // Begun with the one that was tried last: it may have succeeded, and nobody heard of it.
    let last = context.notes.get("candidate").cloned();
    let first = all
        .iter()
        .position(|(kind, subnet)| last.as_ref() == Some(&shown(kind, subnet)));
    for (kind, subnet) in &all[first.unwrap_or(0)..] {
        let address = match given_address(&world.plan, vm, subnet) {
            // Another test may have it.
            Ok(_) if world.beside.is_some() => None,
            Ok(address) => address,
            Err(why) => {
                refused.push(format!("{kind} in {}: {why}", subnet.name));
                continue;
            }
        };
        let request = request(
            &context,
            vm,
            &source.image,
            (kind, subnet, address),
            generation,
        )?;
        let noted = [
            ("generation", generation.to_string()),
            ("candidate", shown(kind, subnet)),
        ];
        context.note(noted).await?;
        let instance = match world.aws.run_instance(&request, name).await {
            Ok(instance) => instance,
            Err(error) if helps(&error) => {
                refused.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        context.note([("instance", instance.clone())]).await?;
        let launched = world.aws.wait_until_running(&instance).await?;
        match adopt(&mut context, name, &launched, &source).await? {
            Ok(running) => return Ok(words(&running, &source.image)),
            Err(why) => {
                generation += 1;
                refused.push(why);
            }
        }
    }
    // The next attempt tries them all again.
    context.notes.clear();
    context
        .note([("generation", (generation + 1).to_string())])
        .await?;
    let all = refused.join("; ");
    let remedy = "name more instance types, or subnets of other zones, in the plan; or wait, and run the same command again";
    Err(StepError::new(format!(
        "nowhere is room for it: {all}; {remedy}"
    )))
}

/// What it is started from.
struct Source {
    image: String,
    /// It gives its licence, and nothing of its disks.
    donor: bool,
}

impl Source {
    fn of(context: &Context, name: &str) -> Result<Self, StepError> {
        let step = format!("image {name}");
        let donor = context.made(&step, "donor");
        Ok(Source {
            donor: donor.is_ok(),
            image: donor.or_else(|_| context.made(&step, "image"))?.to_owned(),
        })
    }
}

fn shown(kind: &str, subnet: &Subnet) -> String {
    format!("{kind} in {}", subnet.name)
}

/// Its token follows from all that it asks for: another request is another instance.
fn request(
    context: &Context,
    vm: &PlannedVm,
    image: &str,
    (kind, subnet, address): (&str, &Subnet, Option<Ipv4Addr>),
    generation: u32,
) -> Result<InstanceRequest, StepError> {
    let world = &context.world;
    let mut request = InstanceRequest {
        token: String::new(),
        image: image.to_owned(),
        instance_type: kind.to_owned(),
        subnet: subnet_id(context, subnet)?,
        // Those of the plan are another network's.
        security_groups: match world.kind {
            RunKind::Test => Vec::new(),
            RunKind::Failover => vm.security_groups.clone(),
        },
        address,
        tags: world.tags(vm),
    };
    request.token = world.token(&["instance", &generation.to_string(), &format!("{request:?}")]);
    Ok(request)
}

/// What an attempt before this one started, and is there: as it was noted, or by its tags.
async fn started(context: &Context, name: &str) -> Result<Option<Launched>, StepError> {
    let aws = &context.world.aws;
    let instance = match context.notes.get("instance") {
        Some(instance) => Some(instance.clone()),
        None if context.notes.contains_key("candidate") => of_the_run(context, name).await?.pop(),
        None => None,
    };
    let Some(instance) = instance else {
        return Ok(None);
    };
    Ok(match aws.instance(&instance).await? {
        Some(launched) if launched.state == "pending" => {
            Some(aws.wait_until_running(&instance).await?)
        }
        other => other,
    })
}

/// One that runs is the VM, and no other is; or why it is gone: it ended by itself, or a donor had no room for its second start.
async fn adopt(
    context: &mut Context,
    name: &str,
    launched: &Launched,
    source: &Source,
) -> Result<Result<Launched, String>, StepError> {
    let world = context.world.clone();
    let (aws, instance) = (&world.aws, &launched.instance);
    let why = match launched.state.as_str() {
        "running" | "stopping" | "stopped" if source.donor => {
            only(context, name, instance).await?;
            donor::swap(context, name, launched).await?;
            // A guest that may have run has written: its disks stay, whatever there is room for.
            let may_have_run = context.notes.get(STARTED) == Some(instance);
            context.note([(STARTED, instance.clone())]).await?;
            match aws.start_instance(instance).await {
                Err(error) if helps(&error) && !may_have_run => error.to_string(),
                started => return Ok(Ok(started?)),
            }
        }
        "running" => {
            only(context, name, instance).await?;
            return Ok(Ok(launched.clone()));
        }
        "terminated" | "shutting-down" => launched.ended().to_string(),
        state => {
            return Err(StepError::new(format!(
                "the instance {instance} is {state}: somebody stopped it, or its guest did; look at its console, start it, and run the \
                 same command again"
            )));
        }
    };
    // It has the address, and the token would find it again.
    aws.remove_instance(instance).await?;
    context.notes.remove("instance");
    Ok(Err(why))
}

async fn of_the_run(context: &Context, name: &str) -> Result<Vec<String>, StepError> {
    let tags = [(RUN_TAG, context.world.run.as_str()), (VM_TAG, name)];
    Ok(context
        .world
        .aws
        .tagged_of(Tagged::Instances, &tags)
        .await?)
}

/// A call that was given up may have arrived after all, with another type or zone: what it started is removed.
async fn only(context: &Context, name: &str, instance: &str) -> Result<(), StepError> {
    for other in of_the_run(context, name)
        .await?
        .iter()
        .filter(|other| *other != instance)
    {
        tracing::warn!(other, "a second instance of {name} is removed");
        context.world.aws.remove_instance(other).await?;
    }
    Ok(())
}

fn subnet_id(context: &Context, subnet: &Subnet) -> Result<String, StepError> {
    match (context.world.kind, &subnet.test) {
        (RunKind::Failover, _) => Ok(subnet.id.clone()),
        (RunKind::Test, Some(test)) => Ok(test.clone()),
        (RunKind::Test, None) => Err(StepError::new(format!(
            "subnet {:?} has no twin in the isolated network: write its `test` into the plan",
            subnet.name
        ))),
    }
}

fn words(launched: &Launched, image: &str) -> Words {
    let volumes = launched
        .volumes
        .iter()
        .map(|(device, volume)| format!("{device}={volume}"));
    let words = [
        ("instance", launched.instance.clone()),
        ("address", launched.address.clone()),
        ("zone", launched.zone.clone()),
        ("type", launched.instance_type.clone()),
        ("volumes", volumes.collect::<Vec<_>>().join(",")),
        ("image", image.to_owned()),
    ];
    words.map(|(name, word)| (name.to_owned(), word)).into()
}
