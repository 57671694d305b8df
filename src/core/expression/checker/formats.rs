//! `'…'.format([…])` with everything written out is checked before it runs, as Kubernetes does.

use crate::core::expression::{
    ast::{Ast, Element, Kind, Literal},
    types::Type,
};

/// The pattern and the values of a call that is written out.
pub(super) fn literal<'a>(
    target: Option<&'a Ast>,
    name: &str,
    arguments: &'a [Ast],
) -> Option<(&'a str, &'a [Element])> {
    match (target.map(|target| &target.kind), name, arguments) {
        (Some(Kind::Literal(Literal::Text(pattern))), "format", [argument]) => match &argument.kind {
            Kind::List(elements) => Some((pattern, elements)),
            _ => None,
        },
        _ => None,
    }
}

/// Checks that each clause fits its value.
pub(super) fn check(pattern: &str, elements: &[Element], types: &[Type]) -> Result<(), String> {
    let mut values = elements.iter().zip(types);
    let mut rest = pattern;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let Some((element, of)) = values.next() else { return Err("format has too few values".to_owned()) };
        let mut chars = after.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit()).chars();
        let Some(clause) = chars.next() else { return Err("the format ends after %".to_owned()) };
        let digits = after.chars().take_while(|c| *c == '.' || c.is_ascii_digit());
        if !is_precision(&digits.collect::<String>()) || !"sdfebxXo".contains(clause) {
            return Err(format!("%{clause} is no clause"));
        }
        if !fits(clause, &element.value, of) {
            return Err(format!("%{clause} cannot show {}", of.name()));
        }
        rest = chars.as_str();
    }
    if values.next().is_some() { Err("format has too many values".to_owned()) } else { Ok(()) }
}

/// Nothing, or a point and digits.
fn is_precision(text: &str) -> bool {
    text.is_empty() || text.strip_prefix('.').is_some_and(|digits| digits.parse::<u32>().is_ok())
}

fn fits(clause: char, value: &Ast, of: &Type) -> bool {
    match (clause, of) {
        (_, Type::Dyn) => true,
        ('s', of) => is_text(value, of),
        ('f' | 'e', Type::Double | Type::Text) => true,
        ('b', Type::Bool) | ('x' | 'X', Type::Text | Type::Bytes) => true,
        ('d' | 'b' | 'x' | 'X' | 'o', Type::Int | Type::Uint) => true,
        _ => false,
    }
}

/// Whether a value has a text; of lists and maps that are written out, the elements too.
fn is_text(value: &Ast, of: &Type) -> bool {
    match (of, &value.kind) {
        (Type::Optional(_) | Type::Opaque(_) | Type::Struct(_) | Type::Parameter(_), _) => false,
        (Type::List(of), Kind::List(elements)) => elements.iter().all(|element| is_text(&element.value, of)),
        (Type::Map(of), Kind::Map(entries)) => {
            entries.iter().all(|entry| is_text(&entry.key, &of.0) && is_text(&entry.value, &of.1))
        }
        _ => true,
    }
}
