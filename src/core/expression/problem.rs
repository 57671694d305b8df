//! What is wrong with an expression as written, and what can go wrong while one runs.
//!
//! A [`Problem`] is found when the expression is loaded and says where and what to write instead. An
//! [`EvaluationError`] is found while it runs: its [`ErrorKind`] is one of few, its text is for people.

use std::fmt;

/// What is wrong with an expression, found before it ever runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where, counted in characters from 1 over the whole text.
    pub column: usize,
    /// What to write instead; may be empty.
    pub hint: String,
}

/// Why an expression has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A field or key is not there.
    NoSuchKey,
    /// A function or operator does not take values of these types.
    NoSuchOverload,
    /// A number, time or duration left its range.
    Overflow,
    /// Division or remainder by zero.
    DivisionByZero,
    /// An index outside a list or text.
    OutOfBounds,
    /// A value that cannot be read or used as asked.
    Invalid,
    /// The fuel is used up.
    OutOfFuel,
}

impl ErrorKind {
    /// A short name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchKey => "no-such-key",
            Self::NoSuchOverload => "no-such-overload",
            Self::Overflow => "overflow",
            Self::DivisionByZero => "division-by-zero",
            Self::OutOfBounds => "out-of-bounds",
            Self::Invalid => "invalid",
            Self::OutOfFuel => "out-of-fuel",
        }
    }
}

/// An expression that ran and has no value. Small, because `&&` and `||` make and drop many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationError {
    /// Which of few kinds.
    pub kind: ErrorKind,
    detail: Option<Box<str>>,
}

impl EvaluationError {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<Box<str>>) -> Self {
        Self { kind, detail: Some(detail.into()) }
    }

    pub(super) fn invalid(detail: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Invalid, detail)
    }

    pub(super) fn no_such_key(key: &str) -> Self {
        Self::new(ErrorKind::NoSuchKey, key)
    }

    pub(super) const NO_OVERLOAD: Self = Self { kind: ErrorKind::NoSuchOverload, detail: None };
    pub(super) const OVERFLOW: Self = Self { kind: ErrorKind::Overflow, detail: None };
    pub(super) const DIVISION_BY_ZERO: Self = Self { kind: ErrorKind::DivisionByZero, detail: None };
    pub(super) const OUT_OF_FUEL: Self = Self { kind: ErrorKind::OutOfFuel, detail: None };
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ErrorKind::NoSuchKey => "no such key",
            ErrorKind::NoSuchOverload => "no such overload",
            ErrorKind::Overflow => "value out of range",
            ErrorKind::DivisionByZero => "division by zero",
            ErrorKind::OutOfBounds => "index out of bounds",
            ErrorKind::Invalid => "invalid value",
            ErrorKind::OutOfFuel => "the expression did not end within its fuel",
        })?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for EvaluationError {}
