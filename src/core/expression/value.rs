//! What an expression computes with.
//!
//! Values borrow from the JSON they were read from and from the expression's own literals; copying one copies a pointer.
//! Walking a map always takes the same order.

use super::library::{cidr::Cidr, format::NamedFormat, quantity::Quantity, regex::Pattern, semver::Version, url::Url};
use std::{cmp::Ordering, net::IpAddr, ops::Deref, sync::Arc};

/// A piece of memory, borrowed or shared.
#[derive(Debug)]
pub(super) enum Shared<'v, T: ?Sized> {
    Borrowed(&'v T),
    Owned(Arc<T>),
}

impl<T: ?Sized> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(value) => Self::Borrowed(value),
            Self::Owned(value) => Self::Owned(Arc::clone(value)),
        }
    }
}

impl<T: ?Sized> Deref for Shared<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(value) => value,
            Self::Owned(value) => value,
        }
    }
}

impl<T: ?Sized> Shared<'_, T> {
    fn lend(&self) -> Shared<'_, T> {
        Shared::Borrowed(self)
    }
}

/// One value.
#[derive(Debug, Clone)]
pub(super) enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Shared<'v, str>),
    Bytes(Shared<'v, [u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(Shared<'v, [Value<'v>]>),
    Map(Shared<'v, Map<'v>>),
    Optional(Option<Arc<Value<'v>>>),
    /// A type, by its name.
    Type(&'static str),
    Quantity(Arc<Quantity>),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Arc<Version>),
    Format(&'static NamedFormat),
    /// A pattern that was compiled with the expression; seen by the functions that take one, and by nothing else.
    Pattern(Arc<Pattern>),
}

/// A moment: seconds since 1970 and nanoseconds of that second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamp {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    /// Seconds east of Greenwich it was written with, which only its text shows.
    pub(super) offset: i32,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

impl<'v> Value<'v> {
    pub(super) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Shared::Owned(text.into()))
    }

    pub(super) fn list(values: Vec<Value<'v>>) -> Self {
        Self::List(Shared::Owned(values.into()))
    }

    pub(super) fn some(value: Value<'v>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub(super) const NONE: Self = Self::Optional(None);

    /// The same value, borrowed from this one.
    pub(super) fn lend(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text.lend()),
            Self::Bytes(bytes) => Value::Bytes(bytes.lend()),
            Self::List(values) => Value::List(values.lend()),
            Self::Map(map) => Value::Map(map.lend()),
            other => other.clone(),
        }
    }

    /// The name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) | Self::Pattern(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }
}

/// Entries by key. Keys are text, whole numbers and booleans.
///
/// A few entries stay as they were written and are searched one by one, which is faster than to sort them; more are
/// sorted. Either way the same map is walked in the same order each time.
#[derive(Debug, Default)]
pub(super) struct Map<'v>(Vec<(Value<'v>, Value<'v>)>);

/// Most entries that are not sorted.
const FEW: usize = 8;

impl<'v> Map<'v> {
    /// Of two entries with the same key the later counts.
    pub(super) fn new(mut entries: Vec<(Value<'v>, Value<'v>)>) -> Self {
        let is_few = entries.len() <= FEW;
        let is_done = if is_few {
            entries.iter().enumerate().all(|(position, (key, _))| {
                entries.iter().skip(position + 1).all(|(other, _)| order(key, other) != Ordering::Equal)
            })
        } else {
            entries.is_sorted_by(|a, b| order(&a.0, &b.0) == Ordering::Less)
        };
        if !is_done {
            entries.sort_by(|a, b| order(&a.0, &b.0));
            entries.reverse();
            entries.dedup_by(|a, b| order(&a.0, &b.0) == Ordering::Equal);
            entries.reverse();
        }
        Self(entries)
    }

    pub(super) fn entries(&self) -> &[(Value<'v>, Value<'v>)] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn field(&self, name: &str) -> Option<&Value<'v>> {
        self.find(|key| match key {
            Value::Text(text) => (**text).cmp(name),
            _ => Ordering::Less,
        })
    }

    /// `order` is that of a key and the one looked for.
    fn find(&self, order: impl Fn(&Value<'v>) -> Ordering) -> Option<&Value<'v>> {
        if self.0.len() <= FEW {
            return self.0.iter().find(|(key, _)| order(key) == Ordering::Equal).map(|(_, value)| value);
        }
        let found = self.0.binary_search_by(|(key, _)| order(key));
        found.ok().and_then(|position| self.0.get(position)).map(|(_, value)| value)
    }

    /// The value of a key; numbers are compared by what they say.
    pub(super) fn get(&self, key: &Value<'_>) -> Option<&Value<'v>> {
        if let Value::Text(name) = key {
            return self.field(name);
        }
        let whole;
        let key = if let Value::Double(double) = key {
            whole = whole_number(*double)?;
            &whole
        } else {
            key
        };
        if !is_key(key) {
            return None;
        }
        self.find(|other| order(other, key))
    }
}

/// Whether a value can be a key.
pub(super) fn is_key(value: &Value<'_>) -> bool {
    matches!(value, Value::Text(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_))
}

/// A double without fraction as a whole number.
pub(super) fn whole_number(double: f64) -> Option<Value<'static>> {
    if double.fract() != 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside the range by the comparison")]
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&double) {
        Some(Value::Int(double as i64))
    } else if (0.0..18_446_744_073_709_551_616.0).contains(&double) {
        Some(Value::Uint(double as u64))
    } else {
        None
    }
}

/// Order of keys: booleans, numbers, texts.
pub(super) fn order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    let rank = |value: &Value<'_>| match value {
        Value::Bool(value) => (0, i128::from(*value)),
        Value::Int(value) => (1, i128::from(*value)),
        Value::Uint(value) => (1, i128::from(*value)),
        _ => (2, 0),
    };
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => (**a).cmp(&**b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}
