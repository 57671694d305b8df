//! Runs a program: a walk over its nodes that pays for every step.
//!
//! `&&` and `||` take errors as cel-go does: an error counts only when no operand decides. Running out of fuel is no such
//! error and ends everything.

mod fold;

use super::{
    ast::Select,
    meter::{Fuel, Meter},
    operators,
    problem::{ErrorKind, EvaluationError},
    program::{Node, Operator},
    scope::Scope,
    value::{Map, Shared, Value, is_key},
};
use std::cmp::Ordering;

pub(super) type Outcome<'v> = Result<Value<'v>, EvaluationError>;

/// Runs `node` in `scope`.
pub(super) fn evaluate<'v>(node: &'v Node, scope: &'v Scope<'_>, fuel: Fuel) -> Outcome<'v> {
    Machine { scope, meter: Meter::new(fuel), locals: Vec::new(), arguments: Vec::new() }.run(node)
}

/// The value of a node without variables, made independent of it; `None` when it has none.
pub(super) fn constant(node: &Node, fuel: Fuel) -> Option<Value<'static>> {
    let scope = Scope::default();
    let mut machine = Machine { scope: &scope, meter: Meter::new(fuel), locals: Vec::new(), arguments: Vec::new() };
    machine.run(node).ok().and_then(|value| owned(&value))
}

/// A copy that borrows nothing.
fn owned(value: &Value<'_>) -> Option<Value<'static>> {
    Some(match value {
        Value::Null => Value::Null,
        Value::Bool(value) => Value::Bool(*value),
        Value::Int(value) => Value::Int(*value),
        Value::Uint(value) => Value::Uint(*value),
        Value::Double(value) => Value::Double(*value),
        Value::Text(text) => Value::text(&**text),
        Value::Bytes(octets) => Value::Bytes(Shared::Owned((&**octets).into())),
        Value::Timestamp(at) => Value::Timestamp(*at),
        Value::Duration(span) => Value::Duration(*span),
        Value::List(values) => Value::list(values.iter().map(owned).collect::<Option<_>>()?),
        Value::Map(map) => {
            let entries = map.entries().iter().map(|(key, value)| Some((owned(key)?, owned(value)?)));
            Value::Map(Shared::Owned(Map::new(entries.collect::<Option<_>>()?).into()))
        }
        Value::Optional(None) => Value::NONE,
        Value::Optional(Some(value)) => Value::some(owned(value)?),
        Value::Type(name) => Value::Type(name),
        Value::Quantity(quantity) => Value::Quantity(quantity.clone()),
        Value::Url(url) => Value::Url(url.clone()),
        Value::Ip(ip) => Value::Ip(*ip),
        Value::Cidr(cidr) => Value::Cidr(*cidr),
        Value::Semver(version) => Value::Semver(version.clone()),
        Value::Format(format) => Value::Format(format),
        Value::Pattern(pattern) => Value::Pattern(pattern.clone()),
    })
}

struct Machine<'v, 's> {
    scope: &'v Scope<'s>,
    meter: Meter,
    /// Variables of the comprehensions around, outermost first.
    locals: Vec<Value<'v>>,
    /// Arguments of the calls under way.
    arguments: Vec<Value<'v>>,
}

impl<'v> Machine<'v, '_> {
    fn run(&mut self, node: &'v Node) -> Outcome<'v> {
        self.meter.spend(1)?;
        match node {
            Node::Constant(value) => Ok(value.lend()),
            Node::Variable(slot) => self.scope.variable(*slot, &mut self.meter),
            Node::Field { variable, name, mode } => self.field(*variable, name, *mode),
            Node::Local(slot) => self.locals.get(*slot).cloned().ok_or(EvaluationError::NO_OVERLOAD),
            Node::Select { operand, field, mode } => {
                let operand = self.run(operand)?;
                select(&operand, field, *mode)
            }
            Node::Index { operand, index, is_optional } => {
                let (operand, index) = (self.run(operand)?, self.run(index)?);
                indexed(&operand, &index, *is_optional)
            }
            Node::And(parts) => self.logical(parts, false),
            Node::Or(parts) => self.logical(parts, true),
            Node::Not(operand) => Ok(Value::Bool(!self.truth(operand)?)),
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                if self.truth(condition)? { self.run(yes) } else { self.run(no) }
            }
            Node::Binary { operator, operands } => {
                let [a, b] = &**operands;
                let (a, b) = (self.run(a)?, self.run(b)?);
                self.binary(*operator, &a, &b)
            }
            Node::OrElse { operands, unwraps } => self.or_else(operands, *unwraps),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Call { function, arguments } => {
                let base = self.arguments.len();
                for argument in arguments {
                    match self.run(argument) {
                        Ok(value) => self.arguments.push(value),
                        Err(error) => {
                            self.arguments.truncate(base);
                            return Err(error);
                        }
                    }
                }
                let result = function(self.arguments.get(base..).unwrap_or_default(), &mut self.meter);
                self.arguments.truncate(base);
                result
            }
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn truth(&mut self, node: &'v Node) -> Result<bool, EvaluationError> {
        match self.run(node)? {
            Value::Bool(value) => Ok(value),
            _ => Err(EvaluationError::NO_OVERLOAD),
        }
    }

    /// `decisive` ends it: `false` for `&&`, `true` for `||`.
    fn logical(&mut self, parts: &'v [Node], decisive: bool) -> Outcome<'v> {
        let mut failed = None;
        for part in parts {
            match self.truth(part) {
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(error) if error.kind == ErrorKind::OutOfFuel => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn field(&mut self, slot: usize, name: &str, mode: Select) -> Outcome<'v> {
        match self.scope.field(slot, name, &mut self.meter)? {
            Some(value) => Ok(found(value, mode)),
            None => missing(name, mode),
        }
    }

    fn binary(&mut self, operator: Operator, a: &Value<'v>, b: &Value<'v>) -> Outcome<'v> {
        let meter = &mut self.meter;
        let order = |meter: &mut Meter, holds: fn(Ordering) -> bool| {
            operators::compare(a, b, meter).map(|order| Value::Bool(holds(order)))
        };
        match operator {
            Operator::Equal => operators::equal(a, b, meter).map(Value::Bool),
            Operator::NotEqual => operators::equal(a, b, meter).map(|equal| Value::Bool(!equal)),
            Operator::Less => order(meter, Ordering::is_lt),
            Operator::LessOrEqual => order(meter, Ordering::is_le),
            Operator::Greater => order(meter, Ordering::is_gt),
            Operator::GreaterOrEqual => order(meter, Ordering::is_ge),
            Operator::In => operators::contained(a, b, meter).map(Value::Bool),
            Operator::Add => operators::add(a, b, meter),
            Operator::Subtract => operators::subtract(a, b),
            Operator::Multiply => operators::multiply(a, b),
            Operator::Divide => operators::divide(a, b),
            Operator::Remainder => operators::remainder(a, b),
        }
    }

    fn or_else(&mut self, operands: &'v [Node; 2], unwraps: bool) -> Outcome<'v> {
        let [first, second] = operands;
        match self.run(first)? {
            Value::Optional(Some(value)) if unwraps => Ok(Value::clone(&value)),
            value @ Value::Optional(Some(_)) => Ok(value),
            Value::Optional(None) => self.run(second),
            // What is no optional stands for itself in cel-go.
            other => Ok(other),
        }
    }

    /// The value of an element or entry; `None` when it is an optional without one.
    fn element(&mut self, node: &'v Node, is_optional: bool) -> Result<Option<Value<'v>>, EvaluationError> {
        let value = self.run(node)?;
        match value {
            value if !is_optional => Ok(Some(value)),
            Value::Optional(inner) => Ok(inner.map(|value| Value::clone(&value))),
            _ => Err(EvaluationError::invalid("an optional element is no optional")),
        }
    }

    fn list(&mut self, elements: &'v [(Node, bool)]) -> Outcome<'v> {
        let mut values = Vec::with_capacity(elements.len());
        for (node, is_optional) in elements {
            values.extend(self.element(node, *is_optional)?);
        }
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &'v [(Node, Node, bool)]) -> Outcome<'v> {
        let mut values = Vec::with_capacity(entries.len());
        for (key, value, is_optional) in entries {
            let key = self.run(key)?;
            if let Some(value) = self.element(value, *is_optional)? {
                if !is_key(&key) {
                    return Err(EvaluationError::invalid(format!("{} is no key", key.type_name())));
                }
                values.push((key, value));
            }
        }
        Ok(Value::Map(Shared::Owned(Map::new(values).into())))
    }
}

fn found<'v>(value: Value<'v>, mode: Select) -> Value<'v> {
    match mode {
        Select::Value => value,
        Select::Optional => Value::some(value),
        Select::Presence => Value::Bool(true),
    }
}

fn missing<'v>(name: &str, mode: Select) -> Outcome<'v> {
    match mode {
        Select::Value => Err(EvaluationError::no_such_key(name)),
        Select::Optional => Ok(Value::NONE),
        Select::Presence => Ok(Value::Bool(false)),
    }
}

fn select<'v>(operand: &Value<'v>, field: &str, mode: Select) -> Outcome<'v> {
    match operand {
        Value::Map(map) => match map.field(field) {
            Some(value) => Ok(found(value.clone(), mode)),
            None => missing(field, mode),
        },
        Value::Optional(inner) => {
            let Some(inner) = inner else { return absent(mode) };
            let mode = if mode == Select::Presence { mode } else { Select::Optional };
            select(inner, field, mode)
        }
        Value::List(_) => Err(EvaluationError::invalid("a list has no fields")),
        _ => missing(field, mode),
    }
}

fn absent<'v>(mode: Select) -> Outcome<'v> {
    Ok(if mode == Select::Presence { Value::Bool(false) } else { Value::NONE })
}

fn indexed<'v>(operand: &Value<'v>, index: &Value<'v>, is_optional: bool) -> Outcome<'v> {
    let value = match operand {
        Value::Optional(None) => return Ok(Value::NONE),
        Value::Optional(Some(inner)) => return indexed(inner, index, true),
        Value::List(values) => {
            let position = position(index)?;
            match usize::try_from(position).ok().and_then(|position| values.get(position)) {
                Some(value) => Some(value),
                None if is_optional => None,
                None => return Err(EvaluationError::new(ErrorKind::OutOfBounds, position.to_string())),
            }
        }
        Value::Map(map) => map.get(index),
        _ => None,
    };
    match value {
        Some(value) if is_optional => Ok(Value::some(value.clone())),
        Some(value) => Ok(value.clone()),
        None if is_optional => Ok(Value::NONE),
        None => Err(EvaluationError::no_such_key(index.type_name())),
    }
}

/// A whole number, for an index.
pub(super) fn position(index: &Value<'_>) -> Result<i64, EvaluationError> {
    match index {
        Value::Int(position) => Ok(*position),
        Value::Uint(position) => i64::try_from(*position).map_err(|_| EvaluationError::OVERFLOW),
        Value::Double(double) => match super::value::whole_number(*double) {
            Some(Value::Int(position)) => Ok(position),
            _ => Err(EvaluationError::invalid("the index is no whole number")),
        },
        other => Err(EvaluationError::invalid(format!("a list is not indexed by {}", other.type_name()))),
    }
}
