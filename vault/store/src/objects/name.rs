//! Which object names the vault uses: a set that every store and file system keeps as it is.

use super::ObjectError;

/// S3's limit is 1024 bytes with the vault's prefix, a file system's 255 a segment.
const MAX_NAME_BYTES: usize = 768;
const MAX_SEGMENT_BYTES: usize = 200;

/// Refuses names that a store would change, or that would leave the vault.
pub fn check_name(name: &str) -> Result<(), ObjectError> {
    let refuse = |cause: &str| {
        Err(ObjectError::BadName {
            name: name.escape_debug().take(120).collect(),
            cause: cause.to_owned(),
        })
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return refuse("it must have 1 to 768 bytes");
    }
    for segment in name.split('/') {
        if segment.is_empty() || segment.len() > MAX_SEGMENT_BYTES {
            return refuse("each segment must have 1 to 200 bytes");
        }
        if segment.starts_with('.') {
            return refuse("no segment may begin with a dot");
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=');
        if !segment.bytes().all(allowed) {
            return refuse("only letters, digits, '-', '_', '.', '=' and '/' are allowed");
        }
    }
    Ok(())
}

/// The same for a listing's prefix, which may be empty and may end with one `/`.
pub(super) fn check_prefix(prefix: &str) -> Result<&str, ObjectError> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() {
        check_name(prefix)?;
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_vault_pass() {
        for name in ["vault/1.json", "packs/ab/abcdef", "points/v-1/0-17", "a=b"] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn names_that_a_store_would_change_are_refused() {
        let long = "a".repeat(201);
        for name in [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a/.hidden",
            "a#1",
            "a b",
            "a%2f",
            "ä",
            "a\0",
            "a\\b",
            &long,
        ] {
            assert!(
                matches!(check_name(name), Err(ObjectError::BadName { .. })),
                "{name:?} passed"
            );
        }
    }

    #[test]
    fn a_prefix_may_be_empty_or_end_with_a_slash() {
        assert_eq!(check_prefix("").unwrap(), "");
        assert_eq!(check_prefix("points/").unwrap(), "points");
        assert!(check_prefix("points//").is_err());
    }
}
