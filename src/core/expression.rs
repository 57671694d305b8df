//! Conditions in CEL, as Kubernetes' ValidatingAdmissionPolicy evaluates them, in bounded time.
//!
//! [`Expression::compile`] refuses what cel-go's checker would refuse, and what could cost too much; [`Expression::evaluate`]
//! runs over a [`Scope`] and ends within its [`Fuel`]. Variables are those of a ValidatingAdmissionPolicy without the
//! authorizer, and `agent`, `action`, `run`. The functions are Kubernetes 1.35's: `tests/cel` has cel-go's own answers to
//! hundreds of expressions, and `tests/it/expressions.rs` holds this to them. Reading order: `parser`, `checker`, `lower`,
//! `evaluate`, then `library`. It does not decide what an error means for a rule.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an operation names the values it takes; all others, also future ones, are refused"
)]

mod ast;
mod checker;
mod convert;
mod cost;
mod declarations;
mod escape;
mod evaluate;
mod lexer;
mod library;
mod lower;
mod macros;
mod meter;
mod operators;
mod parser;
mod print;
mod problem;
mod program;
mod rename;
mod scope;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use meter::Fuel;
pub use problem::{ErrorKind, EvaluationError, Problem};
pub use rename::{Renamed, rename};
pub use scope::{Documents, Scope};

use types::Type;
use value::Value;

/// A condition, checked and ready to be evaluated any number of times, from any thread.
#[derive(Debug)]
pub struct Expression {
    text: Box<str>,
    node: program::Node,
}

impl Expression {
    /// Reads and checks a condition.
    ///
    /// # Errors
    /// What is wrong with it: syntax, unknown names, types, a result that is not bool, or a cost without bound.
    pub fn compile(text: &str) -> Result<Self, Problem> {
        let (expression, found) = Self::checked(text)?;
        match found {
            Type::Bool | Type::Dyn => Ok(expression),
            other => Err(Problem {
                message: format!("a condition is true or false, but this is {}", other.name()),
                column: 1,
                hint: "compare it with something".to_owned(),
            }),
        }
    }

    /// Reads and checks an expression with a result of any type, for [`Expression::print`].
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile_any(text: &str) -> Result<Self, Problem> {
        Self::checked(text).map(|(expression, _)| expression)
    }

    fn checked(text: &str) -> Result<(Self, Type), Problem> {
        let ast = parser::parse(text)?;
        let found = checker::check(text, &ast)?;
        cost::check(text, &ast)?;
        let node = lower::lower(text, &ast)?;
        Ok((Self { text: text.into(), node }, found))
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// It has no value, or none that is true or false; or the fuel did not suffice.
    pub fn evaluate(&self, scope: &Scope<'_>, fuel: Fuel) -> Result<bool, EvaluationError> {
        match evaluate::evaluate(&self.node, scope, fuel)? {
            Value::Bool(value) => Ok(value),
            other => Err(EvaluationError::invalid(format!("{} is not true or false", other.type_name()))),
        }
    }

    /// The value, written as a literal of CEL where there is one; for people and tests.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], but any value will do.
    pub fn print(&self, scope: &Scope<'_>, fuel: Fuel) -> Result<String, EvaluationError> {
        evaluate::evaluate(&self.node, scope, fuel).map(|value| print::value(&value))
    }
}
