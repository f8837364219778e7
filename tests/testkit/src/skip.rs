//! What a machine lacks is said, and a test that needs it fails where it was to be there.

/// Called by a test that ends early: `what` is missing. Panics where SPARESITE_REQUIRE is 1, as `make test` sets it, unless
/// tests/setup.sh could not have it here and named it in SPARESITE_WITHOUT.
#[track_caller]
pub fn skip(what: &str) {
    let set = |name| std::env::var(name).unwrap_or_default();
    assert!(
        !is_required(what, &set("SPARESITE_REQUIRE"), &set("SPARESITE_WITHOUT")),
        "{what} is not to be had here, and SPARESITE_REQUIRE is 1: run tests/setup.sh test"
    );
    eprintln!("SKIPPED: no {what} here");
}

fn is_required(what: &str, require: &str, without: &str) -> bool {
    require == "1" && !without.split_whitespace().any(|word| word == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_not_be_had_may_be_skipped_where_all_is_required() {
        assert!(is_required("sshd", "1", ""));
        assert!(is_required("sshd", "1", "loop sshd2"));
        assert!(!is_required("sshd", "1", "loop sshd"));
        assert!(!is_required("sshd", "", ""));
    }
}
