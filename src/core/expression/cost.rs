//! What an expression may cost, estimated before it ever runs.
//!
//! Lists of unknown length count as [`ASSUMED`]; one comprehension inside another multiplies. The estimate refuses what is
//! senseless; what bounds a running expression is its fuel.

use super::{
    ast::{Ast, Kind},
    lexer::problem,
    problem::Problem,
};

/// Elements of a list nothing is known of.
const ASSUMED: u64 = 100;
/// Highest estimate.
const MAX_COST: u64 = 2_000_000;

/// Refuses an expression that is estimated above the bound.
pub(super) fn check(text: &str, ast: &Ast) -> Result<(), Problem> {
    let cost = estimate(ast);
    if cost <= MAX_COST {
        return Ok(());
    }
    let message = format!("may take {cost} steps, more than {MAX_COST}");
    Err(problem(text, ast.at, message, "nest fewer comprehensions"))
}

fn sum<'a>(parts: impl IntoIterator<Item = &'a Ast>) -> u64 {
    parts.into_iter().fold(1, |sum, part| sum.saturating_add(estimate(part)))
}

fn estimate(ast: &Ast) -> u64 {
    match &ast.kind {
        Kind::Literal(_) | Kind::Identifier(_) => 1,
        Kind::Select { operand, .. } => sum([&**operand]),
        Kind::Call { target, arguments, .. } => sum(target.as_deref().into_iter().chain(arguments)),
        Kind::And(parts) | Kind::Or(parts) => sum(parts),
        Kind::List(elements) => sum(elements.iter().map(|element| &element.value)),
        Kind::Map(entries) => sum(entries.iter().flat_map(|entry| [&entry.key, &entry.value])),
        Kind::Comprehension(of) => {
            let turn = sum(of.filter.iter().chain([&of.body]));
            turn.saturating_mul(elements(&of.range)).saturating_add(estimate(&of.range))
        }
    }
}

/// How many elements a range may have.
fn elements(range: &Ast) -> u64 {
    let count = |elements: usize| u64::try_from(elements).unwrap_or(u64::MAX).max(1);
    match &range.kind {
        Kind::List(elements) => count(elements.len()),
        Kind::Map(entries) => count(entries.len()),
        _ => ASSUMED,
    }
}
