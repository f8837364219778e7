//! The vault: in reach, the key's own, and open to additions.

use std::sync::Arc;

use console::{Failure, Finding};
use vault_format::{gateway_key::GatewayKey, names};
use vault_store::{
    StoreError,
    objects::{Created, ObjectError, Objects, OpenOptions},
    setup::read_config,
};

use super::Checks;
use crate::{commands::init::tools, vault_access::VaultAccess};

/// The vault's objects, if they can be reached at all.
pub async fn check(
    url: &str,
    key: Option<&GatewayKey>,
    checks: &mut Checks,
) -> Option<Arc<dyn Objects>> {
    let objects = match VaultAccess::open(url, OpenOptions::default()).await {
        Ok(access) => access.objects,
        Err(failure) => {
            checks.found("vault", unreachable(url, &failure));
            return None;
        }
    };
    let Some(key) = key else {
        return Some(objects);
    };
    let outcome = reads(&*objects, key).await;
    let reachable = outcome.is_ok();
    checks.add(
        "vault",
        url,
        outcome.map_err(|error| unreadable(url, &error)),
    );
    if reachable {
        let outcome = adds(&*objects).await;
        checks.add(
            "right to add",
            url,
            outcome.map_err(|error| may_not_add(url, &error)),
        );
        let outcome = lists(&*objects, key).await;
        checks.add(
            "right to list",
            url,
            outcome.map_err(|error| may_not_list(url, &error)),
        );
        let outcome = match restore_program(&*objects).await {
            Ok(Some(program)) => Ok(program),
            Ok(None) => Err(tools::no_program("tools/ has none".into())),
            Err(error) => Err(may_not_list(url, &error)),
        };
        checks.add("restore program", url, outcome);
    }
    Some(objects)
}

async fn reads(objects: &dyn Objects, key: &GatewayKey) -> Result<String, StoreError> {
    let (config, _) = read_config(objects, key.trust.vault, None).await?;
    let id: String = config.id.to_string().chars().take(16).collect();
    Ok(format!("{id}…, the key's own, in reach"))
}

/// Creates an object that is there, with the bytes that it has: the answer tells the right, and
/// nothing changes, whatever the store does.
async fn adds(objects: &dyn Objects) -> Result<String, ObjectError> {
    let name = names::log(1);
    let bytes = objects.get(&name).await?;
    match objects.create(&name, bytes).await? {
        Created::Exists => Ok("granted, and objects are not overwritten".into()),
        Created::New => Err(ObjectError::Other {
            name,
            store: objects.describe(),
            cause: "an object that exists could be created: the store ignores If-None-Match".into(),
        }),
    }
}

/// The last one's name, for there may be several. An `init` that was killed leaves none.
async fn restore_program(objects: &dyn Objects) -> Result<Option<String>, ObjectError> {
    let mut names = objects
        .list(names::TOOLS)
        .await?
        .into_iter()
        .map(|l| l.name);
    Ok(names.rfind(|name| tools::is_program(name)))
}

/// What a rebuild needs, over the gateway's own objects.
async fn lists(objects: &dyn Objects, key: &GatewayKey) -> Result<String, ObjectError> {
    let layers = objects.list(&names::maps_of(&key.writer.id)).await?;
    Ok(format!(
        "granted, {} map layers of this gateway",
        layers.len()
    ))
}

fn unreachable(url: &str, failure: &Failure) -> Finding {
    Finding::new("the vault cannot be opened", url, failure.to_string(), "")
}

fn unreadable(url: &str, error: &StoreError) -> Finding {
    Finding::new("the vault cannot be read", url, error.to_string(), "")
}

fn may_not_add(url: &str, error: &ObjectError) -> Finding {
    let remedy = "grant the credentials to create objects (s3:PutObject; on Azure, blob write)";
    Finding::new(
        "nothing can be added to the vault",
        url,
        error.to_string(),
        remedy,
    )
}

fn may_not_list(url: &str, error: &ObjectError) -> Finding {
    let remedy = "grant the credentials to list the vault: `rebuild` and `points` need it";
    Finding::new("the vault cannot be listed", url, error.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use vault_store::objects::{Meter, in_memory};

    use super::*;

    #[tokio::test]
    async fn adding_is_tried_on_what_is_there() {
        let objects = in_memory(Meter::new());
        assert!(adds(&*objects).await.is_err());
        let name = names::log(1);
        objects
            .create(&name, b"entry".as_slice().into())
            .await
            .expect("created");
        adds(&*objects).await.expect("may add");
        assert_eq!(objects.get(&name).await.expect("there").as_ref(), b"entry");
        assert_eq!(objects.list("").await.expect("listed").len(), 1);
    }
}
