//! Text of timestamps (RFC 3339) and durations (`1h30m`), read and written as Go does.

use crate::core::expression::{operators::SECOND, value::Timestamp};

/// Seconds since 1970, nanoseconds and offset of an RFC 3339 time; `None` when it is none.
pub(in crate::core::expression::library) fn read_timestamp(text: &str) -> Option<(i64, i64, i32)> {
    // Go reads an hour of one digit.
    if text.as_bytes().get(12) == Some(&b':') {
        let (day, time) = text.split_at_checked(11)?;
        return read_timestamp(&format!("{day}0{time}"));
    }
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i16>().ok()
    };
    let is = |at: usize, wanted: u8| text.as_bytes().get(at) == Some(&wanted);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let small = |range| number(range).and_then(|value| i8::try_from(value).ok());
    let date = jiff::civil::Date::new(number(0..4)?, small(5..7)?, small(8..10)?).ok()?;
    let (hour, minute, second) = (small(11..13)?, small(14..16)?, small(17..19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix(['.', ',']).map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let (nanos, zone) = match digits {
        Some(0) => return None,
        Some(count) => (nanoseconds(rest.get(1..=count)?), rest.get(count + 1..)?),
        None => (0, rest),
    };
    let days = i64::from(date.since(jiff::civil::date(1970, 1, 1)).ok()?.get_days());
    let seconds = days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let offset = offset(zone)?;
    Some((seconds - i64::from(offset), nanos, offset))
}

fn nanoseconds(digits: &str) -> i64 {
    digits.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i32> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 24 && minutes < 60).then_some(sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60))
}

/// RFC 3339 with as many digits of a second as needed.
pub(in crate::core::expression::library) fn timestamp_text(at: Timestamp) -> String {
    let nanos = i32::try_from(at.nanos).unwrap_or_default();
    let seconds = at.seconds + i64::from(at.offset);
    let utc = jiff::Timestamp::new(seconds, nanos).map(|at| at.to_string()).unwrap_or_default();
    if at.offset == 0 {
        return utc;
    }
    let (sign, minutes) = (if at.offset < 0 { '-' } else { '+' }, at.offset.abs() / 60);
    format!("{}{sign}{:02}:{:02}", utc.trim_end_matches('Z'), minutes / 60, minutes % 60)
}

/// Nanoseconds of `-1h30m0.5s`; `None` when it is no duration or too long.
pub(in crate::core::expression::library) fn read_duration(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (span, after) = one(rest)?;
        total = total.checked_add(span).filter(|total| *total <= 1 << 63)?;
        rest = after;
    }
    let total = i128::try_from(total).ok()?;
    i64::try_from(if is_negative { -total } else { total }).ok()
}

/// The first number with its unit, in nanoseconds, and what follows.
fn one(text: &str) -> Option<(u128, &str)> {
    let whole = text.bytes().take_while(u8::is_ascii_digit).count();
    let after = text.get(whole..)?;
    let fraction = after.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let point = usize::from(after.starts_with('.'));
    if whole + fraction == 0 {
        return None;
    }
    let rest = after.get(point + fraction..)?;
    let length = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at_checked(length)?;
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let digits = text.get(..whole)?;
    let count: u128 = if digits.is_empty() { 0 } else { digits.parse::<u64>().ok().map(u128::from)? };
    // More than 18 digits of a fraction change nothing.
    let digits = after.get(point..point + fraction.min(18))?;
    let part: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = 10u128.pow(u32::try_from(digits.len()).ok()?);
    Some((count.checked_mul(unit)?.checked_add(part * unit / scale)?, rest))
}

/// Seconds, such as `5400s` or `0.5s`.
pub(in crate::core::expression::library) fn duration_text(span: i64) -> String {
    // As Go's `Duration.Seconds()`: whole seconds and the fraction are added as doubles.
    #[expect(clippy::cast_precision_loss, reason = "seconds are written as a double")]
    let seconds = (span / SECOND) as f64 + (span % SECOND) as f64 / 1e9;
    format!("{}s", crate::core::expression::library::numbers::plain_double(seconds))
}
