//! A recovery VM is created and started: where there is room for it.

use recovery_cloud::aws::{InstanceRequest, Launched, Tagged};
use recovery_cloud::{CloudError, Kind};
use recovery_plan::given_address;
use recovery_plan::run::RunKind;
use recovery_plan::{PlannedVm, Subnet};

use super::{Context, StepError, Words};
use crate::failover::world::{RUN_TAG, VM_TAG};

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
    let image = context.made(&format!("image {name}"), "image")?.to_owned();
    let number = |context: &Context, name: &str| -> usize {
        context
            .notes
            .get(name)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    // Begun with the one that was tried last: it may have succeeded, and nobody heard of it.
    let (mut generation, first) = (
        number(&context, "generation"),
        number(&context, "candidate"),
    );
    let mut refused = Vec::new();
    let count = candidates(&context, vm).len();
    for candidate in first..count {
        let (kind, subnet) = candidates(&context, vm)[candidate];
        let (kind, subnet_id) = (kind.to_owned(), subnet_id(&context, subnet)?);
        let request = InstanceRequest {
            token: world.token(&[
                "instance",
                name,
                &candidate.to_string(),
                &generation.to_string(),
            ]),
            image: image.clone(),
            instance_type: kind.clone(),
            subnet: subnet_id,
            // Those of the plan are another network's.
            security_groups: match world.kind {
                RunKind::Test => Vec::new(),
                RunKind::Failover => vm.security_groups.clone(),
            },
            address: given_address(&world.plan, vm, subnet)
                .map_err(|why| StepError::new(why.to_string()))?,
            tags: world.tags(vm),
        };
        let noted = [
            ("generation", generation.to_string()),
            ("candidate", candidate.to_string()),
        ];
        context.note(noted).await?;
        match launch(&mut context, &request, name).await {
            Ok(launched) => {
                only(&context, name, &launched.instance).await?;
                return Ok(words(&launched, &image));
            }
            Err(Launch::Step(error)) => return Err(error),
            Err(Launch::NotStarted(error)) if helps(&error) => refused.push(error.to_string()),
            Err(Launch::NotStarted(error)) => return Err(error.into()),
            // It was started, and does not run. It has the address, and the token would find it again.
            Err(Launch::Ended(instance, error)) => {
                world.aws.remove_instance(&instance).await?;
                generation += 1;
                context.notes.remove("instance");
                let noted = [
                    ("generation", generation.to_string()),
                    ("candidate", candidate.to_string()),
                ];
                context.note(noted).await?;
                if !helps(&error) {
                    return Err(error.into());
                }
                refused.push(error.to_string());
            }
        }
    }
    // The next attempt tries them all again.
    context.notes.clear();
    let again = [
        ("generation", (generation + 1).to_string()),
        ("candidate", "0".to_owned()),
    ];
    context.note(again).await?;
    let all = refused.join("; ");
    let remedy = "name more instance types, or subnets of other zones, in the plan; or wait, and run the same command again";
    Err(StepError::new(format!(
        "nowhere is room for it: {all}; {remedy}"
    )))
}

enum Launch {
    NotStarted(CloudError),
    /// The instance, and why it does not run.
    Ended(String, CloudError),
    Step(StepError),
}

async fn launch(
    context: &mut Context,
    request: &InstanceRequest,
    name: &str,
) -> Result<Launched, Launch> {
    let aws = context.world.aws.clone();
    let instance = aws
        .run_instance(request, name)
        .await
        .map_err(Launch::NotStarted)?;
    let noted = context.note([("instance", instance.clone())]).await;
    noted.map_err(Launch::Step)?;
    let running = aws.wait_until_running(&instance).await;
    running.map_err(|error| match error.kind {
        // The cloud does not answer: it may well run.
        Kind::Unavailable | Kind::Late | Kind::Credentials | Kind::Throttled => {
            Launch::NotStarted(error)
        }
        _ => Launch::Ended(instance, error),
    })
}

/// A call that was given up may have arrived after all, with another type or zone: what it started is removed.
async fn only(context: &Context, name: &str, instance: &str) -> Result<(), StepError> {
    let aws = &context.world.aws;
    let tags = [(RUN_TAG, context.world.run.as_str()), (VM_TAG, name)];
    let found = aws.tagged_of(Tagged::Instances, &tags).await?;
    for other in found.iter().filter(|other| *other != instance) {
        tracing::warn!(other, "a second instance of {name} is removed");
        aws.remove_instance(other).await?;
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
