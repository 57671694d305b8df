//! Comprehensions.

use super::{Machine, Outcome};
use crate::core::expression::{
    ast::Fold,
    library,
    problem::{ErrorKind, EvaluationError},
    program::FoldNode,
    value::{Map, Shared, Value, is_key},
};

/// What a comprehension has gathered so far.
#[derive(Default)]
struct Gathered<'v> {
    list: Vec<Value<'v>>,
    entries: Vec<(Value<'v>, Value<'v>)>,
    count: u64,
    /// As with `&&` and `||`: it counts when nothing decides.
    failed: Option<EvaluationError>,
}

impl<'v> Machine<'v, '_> {
    pub(super) fn fold(&mut self, node: &'v FoldNode) -> Outcome<'v> {
        let range = self.run(&node.range)?;
        match (node.fold, &range) {
            (Fold::OptMap | Fold::OptFlatMap, Value::Optional(inner)) => {
                let Some(inner) = inner else { return Ok(Value::NONE) };
                self.locals.push(Value::clone(inner));
                let result = self.run(&node.body);
                self.locals.pop();
                if node.fold == Fold::OptMap { result.map(Value::some) } else { result }
            }
            (Fold::OptMap | Fold::OptFlatMap, _) => Err(EvaluationError::NO_OVERLOAD),
            (Fold::SortBy, Value::List(values)) => self.sort_by(node, values),
            (_, Value::List(values)) => self.over(
                node,
                values
                    .iter()
                    .enumerate()
                    .map(|(position, value)| (Value::Int(i64::try_from(position).unwrap_or(i64::MAX)), value)),
                true,
            ),
            (_, Value::Map(map)) => {
                self.over(node, map.entries().iter().map(|(key, value)| (key.clone(), value)), false)
            }
            (_, other) => Err(EvaluationError::invalid(format!("{} is no list or map", other.type_name()))),
        }
    }

    fn over<'r>(
        &mut self,
        node: &'v FoldNode,
        range: impl Iterator<Item = (Value<'v>, &'r Value<'v>)>,
        is_list: bool,
    ) -> Outcome<'v>
    where
        'v: 'r,
    {
        let mut gathered = Gathered::default();
        let base = self.locals.len();
        for (key, value) in range {
            let first = match (node.variables, is_list) {
                (1, true) => value.clone(),
                _ => key,
            };
            self.locals.push(first.clone());
            if node.variables == 2 {
                self.locals.push(value.clone());
            }
            let step = self.step(node, first, &mut gathered);
            self.locals.truncate(base);
            match step {
                Ok(Some(decided)) => return Ok(Value::Bool(decided)),
                Ok(None) => {}
                Err(error) if error.kind == ErrorKind::OutOfFuel => return Err(error),
                Err(error) => gathered.fail(node.fold, error),
            }
        }
        gathered.finish(node.fold)
    }

    /// One element; some answer when it decides.
    fn step(
        &mut self,
        node: &'v FoldNode,
        first: Value<'v>,
        gathered: &mut Gathered<'v>,
    ) -> Result<Option<bool>, EvaluationError> {
        self.meter.spend(1)?;
        match node.fold {
            Fold::All => return Ok((!self.truth(&node.body)?).then_some(false)),
            Fold::Exists => return Ok(self.truth(&node.body)?.then_some(true)),
            Fold::ExistsOne => gathered.count += u64::from(self.truth(&node.body)?),
            Fold::Filter => {
                if self.truth(&node.body)? {
                    gathered.list.push(first);
                }
            }
            Fold::Map | Fold::TransformMap | Fold::TransformMapEntry => {
                match node.filter.as_ref().map(|filter| self.truth(filter)) {
                    Some(Ok(false)) => return Ok(None),
                    Some(Err(error)) => {
                        // As with a filter: the last error is the one that is told.
                        gathered.failed = None;
                        return Err(error);
                    }
                    Some(Ok(true)) | None => {}
                }
                let value = self.run(&node.body)?;
                match node.fold {
                    Fold::TransformMap => gathered.insert(first, value)?,
                    Fold::TransformMapEntry => gathered.merge(&value)?,
                    _ => gathered.list.push(value),
                }
            }
            Fold::OptMap | Fold::OptFlatMap | Fold::SortBy => return Err(EvaluationError::NO_OVERLOAD),
        }
        Ok(None)
    }

    fn sort_by(&mut self, node: &'v FoldNode, values: &[Value<'v>]) -> Outcome<'v> {
        let mut keyed = Vec::with_capacity(values.len());
        for value in values {
            self.locals.push(value.clone());
            let key = self.run(&node.body);
            self.locals.pop();
            keyed.push((key?, value.clone()));
        }
        library::lists::sorted(keyed, &mut self.meter)
    }
}

impl<'v> Gathered<'v> {
    /// cel-go tells the first error, but where each element's condition replaces what was before, the last.
    fn fail(&mut self, fold: Fold, error: EvaluationError) {
        if self.failed.is_none() || matches!(fold, Fold::Filter | Fold::ExistsOne) {
            self.failed = Some(error);
        }
    }

    fn insert(&mut self, key: Value<'v>, value: Value<'v>) -> Result<(), EvaluationError> {
        if !is_key(&key) {
            return Err(EvaluationError::invalid(format!("{} is no key", key.type_name())));
        }
        self.entries.push((key, value));
        Ok(())
    }

    fn merge(&mut self, value: &Value<'v>) -> Result<(), EvaluationError> {
        let Value::Map(map) = value else { return Err(EvaluationError::NO_OVERLOAD) };
        self.entries.extend(map.entries().iter().cloned());
        Ok(())
    }

    fn finish(self, fold: Fold) -> Outcome<'v> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        Ok(match fold {
            Fold::All => Value::Bool(true),
            Fold::Exists => Value::Bool(false),
            Fold::ExistsOne => Value::Bool(self.count == 1),
            Fold::Map | Fold::Filter | Fold::OptMap | Fold::OptFlatMap | Fold::SortBy => Value::list(self.list),
            Fold::TransformMap | Fold::TransformMapEntry => {
                let count = self.entries.len();
                let map = Map::new(self.entries);
                if map.len() != count {
                    return Err(EvaluationError::invalid("a key is there twice"));
                }
                Value::Map(Shared::Owned(map.into()))
            }
        })
    }
}
