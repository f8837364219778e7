//! How a gateway is named on the command line.

use console::{Failure, show::printable};
use vault_format::WriterId;
use vault_format::control_log::ControlLog;

/// By label, or by the beginning of the id.
pub fn find_writer(log: &ControlLog, text: &str) -> Result<WriterId, Failure> {
    let active = |id: &WriterId| !log.revoked.contains_key(id);
    let mut matches: Vec<WriterId> = log
        .writers
        .iter()
        .filter(|(id, label)| {
            *label == text || (text.len() >= 6 && id.to_string().starts_with(text))
        })
        .map(|(id, _)| *id)
        .collect();
    // A label may have had a gateway before, which was revoked.
    if matches.len() > 1 && matches.iter().filter(|id| active(id)).count() == 1 {
        matches.retain(active);
    }
    let described = |ids: &mut dyn Iterator<Item = &WriterId>| {
        let text = ids.map(|id| match log.writers.get(id) {
            Some(label) => format!("{} ({id})", printable(label)),
            None => id.to_string(),
        });
        text.collect::<Vec<_>>().join(", ")
    };
    match matches[..] {
        [writer] => Ok(writer),
        [] => Err(
            Failure::failed(format!("there is no gateway {text} in this vault")).remedy(format!(
                "name one of those that there are: {}",
                described(&mut log.writers.keys())
            )),
        ),
        _ => Err(
            Failure::failed(format!("{text} names several gateways")).remedy(format!(
                "name one by its writer id: {}",
                described(&mut matches.iter())
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use vault_format::VaultId;

    fn log() -> ControlLog {
        let mut log = ControlLog::new(VaultId([0; 32]));
        for (byte, label) in [(0xaa, "site1"), (0xab, "site2"), (0xac, "site1")] {
            log.writers.insert(WriterId([byte; 16]), label.into());
        }
        log
    }

    #[test]
    fn a_gateway_is_found_by_label_or_by_the_beginning_of_its_id() {
        let mut log = log();
        assert_eq!(find_writer(&log, "site2").unwrap(), WriterId([0xab; 16]));
        assert_eq!(find_writer(&log, "acacac").unwrap(), WriterId([0xac; 16]));
        assert!(find_writer(&log, "site").is_err());
        assert!(find_writer(&log, "ac").is_err(), "too short to be meant");
        let several = find_writer(&log, "site1").unwrap_err();
        assert_eq!(several.to_string(), "site1 names several gateways");
        log.revoked.insert(WriterId([0xaa; 16]), BTreeMap::new());
        assert_eq!(find_writer(&log, "site1").unwrap(), WriterId([0xac; 16]));
    }
}
