//! Where a vault is to be made: reachable, empty, and apart from the key and the kit.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use console::{Failure, OrFailure};
use vault_store::{
    objects::{Objects, OpenOptions},
    setup::vault_exists,
};

use crate::{
    config::{place::real, vault_url},
    vault_access::VaultAccess,
};

/// For asking what a failed attempt left behind.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Place {
    pub objects: Arc<dyn Objects>,
    /// The folder of a `file:` vault, if this run made it.
    made_folder: Option<PathBuf>,
}

/// The same rules as for `url` in the configuration, so that what is made can be configured.
pub fn check_url(url: &str) -> Result<(), Failure> {
    vault_url::check(url).map_err(|why| Failure::usage(format!("--vault is no vault URL: {why}")))
}

/// Whoever reads the vault must not find the key or the kit in it.
pub fn check_outside(url: &str, files: &[&Path]) -> Result<(), Failure> {
    check_url(url)?;
    let Some(folder) = vault_url::folder(url).map(|folder| real(&folder)) else {
        return Ok(());
    };
    for file in files {
        let absolute = std::path::absolute(file)
            .or_failure(|| Failure::usage(format!("{} is no path", file.display())))?;
        if real(&absolute).starts_with(&folder) {
            let what = format!("{} lies inside the vault {url}", file.display());
            return Err(Failure::usage(what).remedy("choose a path outside of it"));
        }
    }
    Ok(())
}

pub fn options(region: Option<&str>) -> OpenOptions {
    let region = region.map(|region| ("AWS_REGION".to_owned(), region.to_owned()));
    OpenOptions {
        settings: region.into_iter().collect(),
        ..OpenOptions::default()
    }
}

impl Place {
    /// Makes the folder of a `file:` vault; refuses a place that holds anything.
    pub async fn open(url: &str, region: Option<&str>) -> Result<Self, Failure> {
        let folder = vault_url::folder(url).filter(|folder| !folder.exists());
        let options = OpenOptions {
            create_directory: true,
            ..options(region)
        };
        let access = VaultAccess::open(url, options).await?;
        let place = Place {
            objects: access.objects,
            made_folder: folder,
        };
        match place.check_empty(url).await {
            Ok(()) => Ok(place),
            Err(failure) => {
                place.leave();
                Err(failure)
            }
        }
    }

    async fn check_empty(&self, url: &str) -> Result<(), Failure> {
        let failed = || Failure::failed(format!("cannot look at the vault's place {url}"));
        if vault_exists(&*self.objects).await.or_failure(failed)? {
            let what = format!("there is a vault at {url} already; nothing was changed");
            let remedy = "choose an empty place, or add this gateway to that vault with --join";
            return Err(Failure::failed(what).remedy(remedy));
        }
        let found = self.objects.list("").await.or_failure(failed)?;
        let Some(first) = found.first() else {
            return Ok(());
        };
        let what = format!(
            "{url} is not empty: it holds {} objects, such as {}; nothing was changed",
            found.len(),
            first.name
        );
        Err(Failure::failed(what).remedy("choose an empty place: another prefix or folder"))
    }

    /// Removes the folder that this run made, if nothing is in it.
    pub fn leave(&self) {
        if let Some(folder) = &self.made_folder {
            let _ = fs::remove_dir(folder);
        }
    }

    /// After a failed attempt: whether the place is as empty as before.
    pub async fn explain_leftovers(&self, failure: Failure) -> Failure {
        let asked = tokio::time::timeout(PATIENCE, vault_exists(&*self.objects)).await;
        match asked {
            Ok(Ok(false)) => failure,
            _ => Failure::failed(format!(
                "{failure}; the beginnings of a vault may be left there, which hold nothing: \
                 remove them, or choose another place"
            ))
            .because(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_kit_stay_out_of_the_vault() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = folder.path().join("vault");
        let url = format!("file://{}", vault.display());
        let outside = folder.path().join("vault.key");
        check_outside(&url, &[&outside]).expect("outside");
        let inside = vault.join("a/gateway.key");
        let refused = check_outside(&url, &[&outside, &inside]).expect_err("inside");
        assert!(refused.to_string().contains("lies inside the vault"));
        assert!(check_outside("s3://bucket/x", &[&inside]).is_ok());
        assert_eq!(
            check_outside("/srv/vault", &[]).expect_err("no URL").exit(),
            console::Exit::Usage
        );
    }

    #[tokio::test]
    async fn only_an_empty_place_is_taken_and_a_made_folder_goes_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vault");
        let url = format!("file://{}", path.display());
        let place = Place::open(&url, None).await.expect("made");
        assert!(path.is_dir());
        place.leave();
        assert!(!path.exists());

        fs::create_dir(&path).expect("made");
        fs::write(path.join("notes.txt"), b"mine").expect("written");
        let refused = Place::open(&url, None).await.expect_err("not empty");
        assert!(refused.to_string().contains("is not empty"), "{refused}");
        assert!(path.join("notes.txt").exists());
    }
}
