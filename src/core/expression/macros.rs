//! Calls that are no calls: `has`, the comprehensions of one and two variables, `optMap`, `optFlatMap`, `sortBy`.

use super::{
    ast::{Ast, Comprehension, Fold, Kind, Select},
    parser::Parser,
    problem::Problem,
};

/// A call without receiver.
pub(super) fn global(parser: &mut Parser<'_>, at: usize, name: String, arguments: Vec<Ast>) -> Result<Ast, Problem> {
    if name != "has" || arguments.len() != 1 {
        return parser.node(at, Kind::Call { target: None, function: name, arguments });
    }
    match arguments.into_iter().next().map(|argument| argument.kind) {
        Some(Kind::Select { operand, field, mode: Select::Value }) => {
            parser.node(at, Kind::Select { operand, field, mode: Select::Presence })
        }
        _ => parser.refuse_at(at, "has() asks for a field", "write has(object.field)"),
    }
}

/// A call with a receiver.
pub(super) fn receiver(
    parser: &mut Parser<'_>,
    at: usize,
    target: Ast,
    name: String,
    arguments: Vec<Ast>,
) -> Result<Ast, Problem> {
    let Some((fold, variables, has_filter)) = shape(&name, arguments.len()) else {
        return parser.node(at, Kind::Call { target: Some(Box::new(target)), function: name, arguments });
    };
    let mut rest = arguments.into_iter();
    let mut names: Vec<String> = Vec::with_capacity(variables);
    for argument in rest.by_ref().take(variables) {
        let Kind::Identifier(variable) = argument.kind else {
            return parser.refuse_at(argument.at, "a variable is a simple name", "write .all(x, …)");
        };
        if variable == "__result__" || names.contains(&variable) {
            return parser.refuse_at(argument.at, format!("{variable:?} cannot name this variable"), "use another");
        }
        names.push(variable);
    }
    let filter = if has_filter { rest.next() } else { None };
    let Some(body) = rest.next() else { return parser.refuse_at(at, "an argument is missing", "") };
    let comprehension = Comprehension { fold, range: target, variables: names, filter, body };
    parser.node(at, Kind::Comprehension(Box::new(comprehension)))
}

/// Fold, number of variables, and whether a condition stands before the body.
fn shape(name: &str, arguments: usize) -> Option<(Fold, usize, bool)> {
    Some(match (name, arguments) {
        ("all", 2 | 3) => (Fold::All, arguments - 1, false),
        ("exists", 2 | 3) => (Fold::Exists, arguments - 1, false),
        ("exists_one", 2 | 3) | ("existsOne", 3) => (Fold::ExistsOne, arguments - 1, false),
        ("map", 2 | 3) => (Fold::Map, 1, arguments == 3),
        ("filter", 2) => (Fold::Filter, 1, false),
        ("transformList", 3 | 4) => (Fold::Map, 2, arguments == 4),
        ("transformMap", 3 | 4) => (Fold::TransformMap, 2, arguments == 4),
        ("transformMapEntry", 3 | 4) => (Fold::TransformMapEntry, 2, arguments == 4),
        ("optMap", 2) => (Fold::OptMap, 1, false),
        ("optFlatMap", 2) => (Fold::OptFlatMap, 1, false),
        ("sortBy", 2) => (Fold::SortBy, 1, false),
        _ => return None,
    })
}
