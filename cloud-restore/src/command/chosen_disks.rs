//! Which disks of a recovery point `--disk` names.

use console::Failure;
use vault_format::manifest::{Disk, Manifest};

/// The disks that were named; all of them when none was.
pub fn choose<'a>(manifest: &'a Manifest, named: &[String]) -> Result<Vec<&'a Disk>, Failure> {
    let all = &manifest.disks;
    let vm = &manifest.facts.vm;
    if let Some(unknown) = named
        .iter()
        .find(|name| all.iter().all(|disk| disk.name != **name))
    {
        let known: Vec<&str> = all.iter().map(|disk| disk.name.as_str()).collect();
        return Err(Failure::failed(format!(
            "VM {vm} has no disk {unknown} at this recovery point"
        ))
        .remedy(format!(
            "name one of those that it has: {}",
            known.join(", ")
        )));
    }
    let chosen = all
        .iter()
        .filter(|disk| named.is_empty() || named.contains(&disk.name));
    let chosen: Vec<&Disk> = chosen.collect();
    match chosen.is_empty() {
        true => Err(Failure::failed(format!(
            "VM {vm} has no disks at this recovery point"
        ))),
        false => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point_view::tests::point;

    #[test]
    fn all_disks_unless_some_are_named() {
        let point = point("dc01", 1, 1, &["sda", "sdb", "swap"]);
        let chosen = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(|n| (*n).to_owned()).collect();
            choose(&point.manifest, &named)
                .map(|disks| disks.iter().map(|d| d.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap(), ["sda", "sdb", "swap"]);
        assert_eq!(chosen(&["swap", "sda"]).unwrap(), ["sda", "swap"]);
        let failure = chosen(&["sdc"]).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "VM dc01 has no disk sdc at this recovery point"
        );
    }
}
