//! What a vault URL may look like. Only its form: whether the vault exists is for `check`.

use std::path::PathBuf;

/// Why a text is no vault URL, with what is accepted.
pub(crate) fn check(url: &str) -> Result<(), String> {
    let accepted = "write file:///FOLDER, s3://BUCKET/PREFIX or azure://ACCOUNT/CONTAINER/PREFIX";
    let refuse = |why: &str| Err(format!("{why}; {accepted}"));
    let Some((scheme, rest)) = url.split_once("://") else {
        return refuse("it has no scheme");
    };
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("it holds white space");
    }
    let mut parts = rest.trim_end_matches('/').split('/');
    let first = parts.next().unwrap_or_default();
    // Before the rest, so that no secret is taken for a name and repeated in a message.
    if scheme != "file" && first.contains(['@', ':']) {
        return refuse("credentials and ports do not belong into it");
    }
    if rest.contains(['?', '#', '%', '@']) {
        return refuse("`?`, `#`, `%` and `@` have no meaning in it");
    }
    match scheme {
        "file" if !rest.starts_with('/') => {
            return refuse("a file URL has three slashes and an absolute path");
        }
        "file" if rest.trim_matches('/').is_empty() => return refuse("it names the root folder"),
        "file" => {}
        "s3" if !is_name(first, 3..=63, b"-.") => return refuse("this is no bucket's name"),
        "s3" => {}
        "azure" if !is_name(first, 3..=24, b"") => {
            return refuse("this is no storage account's name");
        }
        "azure" if !is_name(parts.next().unwrap_or_default(), 3..=63, b"-") => {
            return refuse("this is no container's name");
        }
        "azure" => {}
        _ => return refuse("its scheme is not known"),
    }
    match parts.any(|part| matches!(part, "" | "." | "..")) {
        true => refuse("its path holds an empty part, `.` or `..`"),
        false => Ok(()),
    }
}

/// The folder of a vault that is one.
pub(crate) fn folder(url: &str) -> Option<PathBuf> {
    Some(url.strip_prefix("file://")?.trim_end_matches('/').into())
}

/// Lower case, digits and `extra`, none of which stands first or last.
fn is_name(name: &str, length: std::ops::RangeInclusive<usize>, extra: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    length.contains(&name.len())
        && name.bytes().all(|b| plain(b) || extra.contains(&b))
        && name.bytes().next().is_some_and(plain)
        && name.bytes().next_back().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_accepted() {
        for url in [
            "file:///srv/sparesite/vault",
            "file:///srv/vault/",
            "s3://acme-dr/site1",
            "s3://acme.dr",
            "azure://acmedr/vault/site1/a",
            "azure://acmedr/vault",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (url, why) in [
            ("/srv/vault", "it has no scheme"),
            ("https://acme.example/x", "its scheme is not known"),
            (
                "file://srv/vault",
                "a file URL has three slashes and an absolute path",
            ),
            ("file:///", "it names the root folder"),
            (
                "file:///srv/../vault",
                "its path holds an empty part, `.` or `..`",
            ),
            (
                "s3://KEY:secret@bucket/x",
                "credentials and ports do not belong into it",
            ),
            ("s3://Bucket", "this is no bucket's name"),
            ("s3://-b-/x", "this is no bucket's name"),
            ("s3://", "this is no bucket's name"),
            (
                "s3://bucket//x",
                "its path holds an empty part, `.` or `..`",
            ),
            (
                "s3://bucket/a?versionId=1",
                "`?`, `#`, `%` and `@` have no meaning in it",
            ),
            ("azure://acme-dr/vault", "this is no storage account's name"),
            ("azure://acmedr", "this is no container's name"),
            ("s3://bucket/a b", "it holds white space"),
        ] {
            let refused = check(url).expect_err(url);
            assert_eq!(refused.split("; write").next(), Some(why), "{url}");
        }
    }
}
