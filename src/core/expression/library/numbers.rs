//! Doubles as text, as Go writes and reads them, and as whole numbers.

/// A double as Go's `strconv.FormatFloat(value, 'g', -1, 64)` writes it.
pub(in crate::core::expression) fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // Go writes small and large numbers with an exponent.
    if (-4..6).contains(&exponent) {
        return plain_double(value);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// Without exponent, with as many digits as it takes.
pub(super) fn plain_double(value: f64) -> String {
    format!("{value}")
}

/// A double as Go's `strconv.ParseFloat` reads it; hexadecimal is not read.
pub(super) fn read_double(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_infinity = unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity");
    if unsigned.eq_ignore_ascii_case("nan") {
        return (unsigned.len() == text.len()).then_some(f64::NAN);
    }
    let value: f64 = text.parse().ok()?;
    (value.is_finite() || is_infinity).then_some(value)
}

/// Without its fraction, when it is inside the range.
pub(super) fn truncated_int(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "inside the range by the comparison")]
    (value > -9_223_372_036_854_775_808.0 && value < 9_223_372_036_854_775_808.0).then_some(value as i64)
}

/// Without its fraction, when it is inside the range.
pub(super) fn truncated_uint(value: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside the range by the comparison")]
    (0.0..18_446_744_073_709_551_616.0).contains(&value).then_some(value as u64)
}
