//! A decimal number and the word after it, without floating point: `1.5 GB` is exact or refused.

/// Splits `1.5 GB` into `1.5` and `GB`; spaces around both are dropped.
pub(super) fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotANumber {
    Missing,
    Malformed,
    TooLarge,
    /// The product is not whole: `0.3 B`.
    Fractional,
}

/// `number × unit`, exact in u64.
pub(super) fn times(number: &str, unit: u64) -> Result<u64, NotANumber> {
    if number.is_empty() {
        return Err(NotANumber::Missing);
    }
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return Err(NotANumber::Malformed),
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    if whole.is_empty() || fraction.contains('.') {
        return Err(NotANumber::Malformed);
    }
    let fraction = fraction.trim_end_matches('0');
    // 18 digits after the point keep the product below 10^18 × 2^64 < 2^124.
    if fraction.len() > 18 {
        return Err(NotANumber::Fractional);
    }
    let whole = digits(whole)?
        .checked_mul(u128::from(unit))
        .ok_or(NotANumber::TooLarge)?;
    let scale = 10u128.pow(fraction.len() as u32);
    let part = if fraction.is_empty() {
        0
    } else {
        digits(fraction)? * u128::from(unit)
    };
    if !part.is_multiple_of(scale) {
        return Err(NotANumber::Fractional);
    }
    let total = whole
        .checked_add(part / scale)
        .ok_or(NotANumber::TooLarge)?;
    u64::try_from(total).map_err(|_| NotANumber::TooLarge)
}

fn digits(text: &str) -> Result<u128, NotANumber> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NotANumber::Malformed);
    }
    text.parse().map_err(|_| NotANumber::TooLarge)
}

/// `value` in the largest of `units` (name, size) that divides it.
pub(super) fn in_largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    let divides =
        |(_, size): &&(&str, u64)| value.is_multiple_of(*size) && (value != 0 || *size == 1);
    match units.iter().filter(divides).max_by_key(|(_, size)| *size) {
        Some((name, size)) => format!("{} {name}", value / size),
        None => value.to_string(),
    }
}

/// Why `number unit` failed, for the message of the unit types.
pub(super) fn reason(problem: NotANumber, smallest: &str) -> String {
    match problem {
        NotANumber::Missing => "it must start with a number".into(),
        NotANumber::Malformed => "it must be a plain decimal number and a unit".into(),
        NotANumber::TooLarge => "it is too large".into(),
        NotANumber::Fractional => format!("it is not a whole number of {smallest}"),
    }
}

/// Why no unit matched.
pub(super) fn unknown_unit(number: &str, unit: &str) -> String {
    match unit {
        "" if !number.is_empty() => "the unit is missing".into(),
        _ if number.is_empty() => "it must start with a number".into(),
        _ => format!(
            "no such unit: {:?}",
            unit.chars().take(12).collect::<String>()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_exactly_or_refuses() {
        assert_eq!(times("500", 1_000_000_000), Ok(500_000_000_000));
        assert_eq!(times("1.5", 1024), Ok(1536));
        assert_eq!(times("0.10", 10), Ok(1));
        assert_eq!(times("1.0", 1), Ok(1));
        assert_eq!(times("0.3", 1), Err(NotANumber::Fractional));
        assert_eq!(
            times("0.0000000000000000000001", 1),
            Err(NotANumber::Fractional)
        );
        assert_eq!(times("18446744073709551615", 1), Ok(u64::MAX));
        assert_eq!(times("18446744073709551616", 1), Err(NotANumber::TooLarge));
        assert_eq!(
            times("18446744073709551615", 1 << 50),
            Err(NotANumber::TooLarge)
        );
        assert_eq!(times(&"9".repeat(60), 1), Err(NotANumber::TooLarge));
        assert_eq!(times("", 8), Err(NotANumber::Missing));
        for malformed in [".", "1.", ".5", "1.2.3", "1..2"] {
            assert_eq!(
                times(malformed, 8),
                Err(NotANumber::Malformed),
                "{malformed}"
            );
        }
    }
}
