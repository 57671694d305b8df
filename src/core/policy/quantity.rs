//! Kubernetes quantities as whole billionths, exact or not at all.
//!
//! `500m`, `1.5Gi`, `2e3`, `3`: what `resource.Quantity` reads, without its rounding. What does not fit is `None`,
//! never an approximation.

/// One, in billionths.
pub(super) const ONE: i128 = 1_000_000_000;

/// Billionths of `text`.
pub(super) fn parse(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 40 {
        return None;
    }
    let digits: String = [whole, fraction].concat();
    let mantissa: i128 = digits.parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let (factor, power) = scale(suffix)?;
    let value = shift(mantissa.checked_mul(factor)?, power + 9 - places)?;
    Some(if negative { -value } else { value })
}

/// What a suffix multiplies by: a factor, and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| (1i128 << (10 * power), 0);
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            (1, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 40)?)
        }
    })
}

fn shift(value: i128, power: i32) -> Option<i128> {
    let factor = 10i128.checked_pow(power.unsigned_abs())?;
    if power >= 0 {
        return value.checked_mul(factor);
    }
    (value % factor == 0).then(|| value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_a_quantity_is_read_exactly() {
        for (text, billionths) in [
            ("1", ONE),
            ("0", 0),
            ("-2", -2 * ONE),
            ("500m", ONE / 2),
            ("1.5", 3 * ONE / 2),
            (".5", ONE / 2),
            ("1Ki", 1024 * ONE),
            ("1.5Gi", 3 * (1 << 29) * ONE),
            ("2e3", 2000 * ONE),
            ("1E", 1_000_000_000_000_000_000 * ONE),
            ("1E2", 100 * ONE),
            ("3n", 3),
            ("1.0000", ONE),
        ] {
            assert_eq!(parse(text), Some(billionths), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_or_does_not_fit_is_nothing() {
        for text in ["", "-", ".", "1.2.3", "1x", "1KiB", "e3", "1e", "0.1n", "1e40", "ten", "1 Gi", "--1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,48}") {
            parse(&text);
        }

        #[test]
        fn whole_numbers_keep_their_value(number in any::<i64>()) {
            prop_assert_eq!(parse(&number.to_string()), Some(i128::from(number) * ONE));
        }
    }
}
