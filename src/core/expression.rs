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
mod scope;
mod types;
mod value;

pub use meter::Fuel;
pub use problem::{ErrorKind, EvaluationError, Problem};
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const POD: &str = r#"{"metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "containers": [{"name": "a", "image": "reg.example/a:1"}, {"name": "b"}]}}"#;

    fn holds(text: &str) -> Result<bool, EvaluationError> {
        let object: Box<RawValue> = serde_json::from_str(POD).unwrap();
        let scope = Scope::from_json([("object", &*object)]);
        Expression::compile(text).unwrap().evaluate(&scope, Fuel::default())
    }

    #[test]
    fn a_condition_reads_the_object() {
        assert_eq!(holds("object.spec.replicas > 2 && object.metadata.name.startsWith('w')"), Ok(true));
        assert_eq!(holds("object.spec.containers.all(c, has(c.image))"), Ok(false));
        assert_eq!(holds("object.spec.?securityContext.?runAsNonRoot.orValue(false)"), Ok(false));
        assert_eq!(holds("oldObject == null"), Ok(true));
    }

    #[test]
    fn an_error_counts_only_when_nothing_decides() {
        assert_eq!(holds("object.missing == 1 || object.spec.replicas == 3"), Ok(true));
        assert_eq!(holds("object.missing == 1 && object.spec.replicas == 4"), Ok(false));
        assert_eq!(holds("object.missing == 1").map_err(|error| error.kind), Err(ErrorKind::NoSuchKey));
    }

    #[test]
    fn what_cannot_be_a_condition_is_refused_with_its_place() {
        for (text, column) in
            [("object.a && 'x'", 13), ("nothing == 1", 1), ("1 +", 4), ("'a'.nope()", 1), ("1 + 1", 1)]
        {
            let problem = Expression::compile(text).unwrap_err();
            assert_eq!(problem.column, column, "{text}: {problem}");
        }
    }

    #[test]
    fn nested_loops_are_refused_and_fuel_ends_the_rest() {
        let nested = "object.a.all(x, object.a.all(y, object.a.all(z, object.a.all(w, w == x))))";
        assert!(Expression::compile(nested).is_err());
        let scope = Scope::default();
        let expression = Expression::compile("lists.range(1000).all(x, lists.range(1000).all(y, y >= 0 || x > 0))");
        let error = expression.unwrap().evaluate(&scope, Fuel::new(10_000)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::OutOfFuel);
    }

    #[test]
    fn every_declared_function_is_there() {
        for name in declarations::names() {
            let operator = ["_", "@in"].iter().any(|mark| name.contains(mark));
            assert!(operator || library::function(name).is_some(), "{name}");
        }
    }
}
