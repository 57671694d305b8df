//! Types of comprehensions.

use super::Checker;
use crate::core::expression::{
    ast::{Ast, Comprehension, Fold},
    problem::Problem,
    types::Type,
};

impl Checker<'_> {
    pub(super) fn comprehension(&mut self, comprehension: &Comprehension) -> Result<Type, Problem> {
        let range = self.check(&comprehension.range)?;
        let range = self.known(&range);
        if matches!(comprehension.fold, Fold::OptMap | Fold::OptFlatMap) {
            return self.optional_map(comprehension, &range);
        }
        let types = self.variables(&comprehension.range, &range, comprehension.variables.len())?;
        let before = self.locals.len();
        let first = types.first().cloned().unwrap_or(Type::Dyn);
        self.locals.extend(comprehension.variables.iter().cloned().zip(types));
        if let Some(filter) = &comprehension.filter {
            let found = self.check(filter)?;
            self.demand(filter, &Type::Bool, &found)?;
        }
        let body = self.check(&comprehension.body)?;
        self.locals.truncate(before);
        self.folded(comprehension, &range, first, body)
    }

    fn folded(&mut self, of: &Comprehension, range: &Type, first: Type, body: Type) -> Result<Type, Problem> {
        match of.fold {
            Fold::All | Fold::Exists | Fold::ExistsOne => {
                self.demand(&of.body, &Type::Bool, &body)?;
                Ok(Type::Bool)
            }
            Fold::Filter => {
                self.demand(&of.body, &Type::Bool, &body)?;
                Ok(Type::list(first))
            }
            Fold::Map | Fold::OptMap | Fold::OptFlatMap => Ok(Type::list(body)),
            Fold::TransformMap => Ok(Type::map(first, body)),
            Fold::TransformMapEntry => {
                let (key, value) = (self.substitutions.fresh(), self.substitutions.fresh());
                let wanted = Type::map(key, value);
                self.demand(&of.body, &wanted, &body)?;
                Ok(self.known(&wanted))
            }
            Fold::SortBy => {
                let types = [range.clone(), Type::list(body)];
                self.resolve(&of.body, "@sortByAssociatedKeys", true, &types)
            }
        }
    }

    fn variables(&mut self, ast: &Ast, range: &Type, count: usize) -> Result<Vec<Type>, Problem> {
        let both = |key: Type, value: Type| if count == 2 { vec![key, value] } else { vec![key] };
        match range {
            Type::List(of) if count == 2 => Ok(vec![Type::Int, Type::clone(of)]),
            Type::List(of) => Ok(vec![Type::clone(of)]),
            Type::Map(of) => Ok(both(of.0.clone(), of.1.clone())),
            Type::Dyn => Ok(both(Type::Dyn, Type::Dyn)),
            Type::Parameter(_) => {
                self.substitutions.assign(&Type::Dyn, range);
                Ok(both(Type::Dyn, Type::Dyn))
            }
            other => self.refuse(ast, format!("{} is no list or map", other.name()), ""),
        }
    }

    fn optional_map(&mut self, of: &Comprehension, range: &Type) -> Result<Type, Problem> {
        let inner = self.substitutions.fresh();
        self.demand(&of.range, &Type::optional(inner.clone()), range)?;
        let inner = self.known(&inner);
        let name = of.variables.first().cloned().unwrap_or_default();
        self.locals.push((name, inner));
        let body = self.check(&of.body)?;
        self.locals.pop();
        if of.fold == Fold::OptMap {
            return Ok(Type::optional(body));
        }
        let wanted = Type::optional(self.substitutions.fresh());
        self.demand(&of.body, &wanted, &body)?;
        Ok(self.known(&body))
    }
}
