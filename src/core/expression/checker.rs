//! Types of an expression, found before it runs: what cel-go's checker would refuse is refused here.
//!
//! Follows `checker/checker.go` of cel-go 0.26 with Kubernetes' options: elements of a list or map literal are of one
//! type, numbers compare across types. Comprehensions are checked as the loops cel-go makes of them.

mod fold;
mod formats;

use super::{
    ast::{Ast, Element, Entry, Kind, Literal, Select},
    declarations::{self, Overload},
    lexer::problem,
    problem::Problem,
    types::{Substitutions, Type},
};

/// The type of the whole expression; what no one knows is `dyn`.
pub(super) fn check(text: &str, ast: &Ast) -> Result<Type, Problem> {
    let mut checker =
        Checker { text, substitutions: Substitutions::default(), locals: Vec::new(), is_formatted: false };
    let found = checker.check(ast)?;
    Ok(checker.substitutions.apply(&found).replace(&mut |_| Type::Dyn))
}

/// `a.b.c` as one name, when it is written as names and dots only.
pub(super) fn qualified(ast: &Ast) -> Option<String> {
    match &ast.kind {
        Kind::Identifier(name) => Some(name.clone()),
        Kind::Select { operand, field, mode: Select::Value } => Some(format!("{}.{field}", qualified(operand)?)),
        _ => None,
    }
}

struct Checker<'t> {
    text: &'t str,
    substitutions: Substitutions,
    locals: Vec<(String, Type)>,
    /// Inside the arguments of `format`.
    is_formatted: bool,
}

impl Checker<'_> {
    fn refuse<T>(&self, ast: &Ast, message: impl Into<String>, hint: &str) -> Result<T, Problem> {
        Err(problem(self.text, ast.at, message, hint))
    }

    fn known(&self, of: &Type) -> Type {
        self.substitutions.apply(of)
    }

    /// Fails unless `found` may stand where `wanted` is.
    fn demand(&mut self, ast: &Ast, wanted: &Type, found: &Type) -> Result<(), Problem> {
        if self.substitutions.assign(wanted, found) {
            return Ok(());
        }
        let (wanted, found) = (self.known(wanted).name(), self.known(found).name());
        self.refuse(ast, format!("expected {wanted}, but this is {found}"), "")
    }

    fn check(&mut self, ast: &Ast) -> Result<Type, Problem> {
        match &ast.kind {
            Kind::Literal(literal) => Ok(of_literal(literal)),
            Kind::Identifier(name) => self.identifier(name).map_or_else(|| self.undeclared(ast, name), Ok),
            Kind::Select { operand, field, mode } => self.select(ast, operand, field, *mode),
            Kind::Call { target, function, arguments } => self.call(ast, target.as_deref(), function, arguments),
            Kind::And(parts) | Kind::Or(parts) => {
                for part in parts {
                    let found = self.check(part)?;
                    self.demand(part, &Type::Bool, &found)?;
                }
                Ok(Type::Bool)
            }
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn undeclared<T>(&self, ast: &Ast, name: &str) -> Result<T, Problem> {
        let hint = match name {
            "authorizer" => "the authorizer is not available here; use agent, action and request",
            "variables" => "write the expression in place",
            "cel" => "Kubernetes has no cel.bind",
            _ => "use object, oldObject, request, namespaceObject, params, agent, action or run",
        };
        self.refuse(ast, format!("{name:?} is not declared"), hint)
    }

    fn identifier(&self, name: &str) -> Option<Type> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        local
            .map(|(_, of)| of.clone())
            .or_else(|| declarations::variable(name))
            .or_else(|| declarations::type_named(name).map(|of| Type::Of(of.into())))
    }

    fn select(&mut self, ast: &Ast, operand: &Ast, field: &str, mode: Select) -> Result<Type, Problem> {
        if mode == Select::Value
            && let Some(of) = qualified(ast).and_then(|name| declarations::type_named(&name))
        {
            return Ok(Type::Of(of.into()));
        }
        let found = self.check(operand)?;
        let found = self.known(&found);
        let (target, is_optional) = match &found {
            Type::Optional(of) => (Type::clone(of), true),
            other => (other.clone(), false),
        };
        let result = match &target {
            Type::Map(of) => of.1.clone(),
            Type::Dyn => Type::Dyn,
            Type::Parameter(_) => {
                self.substitutions.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Struct(name) => match declarations::field(name, field) {
                Some(of) => of,
                None => return self.refuse(ast, format!("{name} has no field {field:?}"), ""),
            },
            other => return self.refuse(ast, format!("{} has no fields", other.name()), ""),
        };
        Ok(match mode {
            Select::Presence => Type::Bool,
            Select::Optional => Type::optional(result),
            Select::Value if is_optional => Type::optional(result),
            Select::Value => result,
        })
    }

    fn call(&mut self, ast: &Ast, target: Option<&Ast>, name: &str, arguments: &[Ast]) -> Result<Type, Problem> {
        let was_formatted = self.is_formatted;
        self.is_formatted |= name == "format";
        let mut types = Vec::with_capacity(arguments.len() + 1);
        match formats::literal(target, name, arguments) {
            Some((pattern, elements)) => {
                let (of, found) = self.elements(elements)?;
                formats::check(pattern, elements, &found)
                    .or_else(|message| self.refuse(ast, message, "see CEL's string.format"))?;
                types.push(of);
            }
            None => {
                for argument in arguments {
                    types.push(self.check(argument)?);
                }
            }
        }
        self.is_formatted = was_formatted;
        let Some(target) = target else { return self.resolve(ast, name, false, &types) };
        if let Some(prefix) = qualified(target) {
            let whole = format!("{prefix}.{name}");
            if declarations::function(&whole).is_some() {
                return self.resolve(ast, &whole, false, &types);
            }
        }
        types.insert(0, self.check(target)?);
        self.resolve(ast, name, true, &types)
    }

    fn resolve(&mut self, ast: &Ast, name: &str, is_member: bool, types: &[Type]) -> Result<Type, Problem> {
        let Some(overloads) = declarations::function(name) else {
            return self.refuse(ast, format!("there is no function {name:?}"), "see the library of Kubernetes' CEL");
        };
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.is_member == is_member) {
            let Some(found) = self.matched(overload, types) else { continue };
            result = Some(match result {
                None => found,
                Some(before) if before == Type::Dyn || before == found => before,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(result) => Ok(result),
            None => {
                let found: Vec<String> = types.iter().map(|of| self.known(of).name()).collect();
                self.refuse(ast, format!("{name} does not take ({})", found.join(", ")), "see its overloads")
            }
        }
    }

    /// The result of an overload that takes these types.
    fn matched(&mut self, overload: &Overload, types: &[Type]) -> Option<Type> {
        if overload.arguments.len() != types.len() {
            return None;
        }
        let fresh: Vec<Type> = (0..overload.parameters).map(|_| self.substitutions.fresh()).collect();
        let mut by = |parameter: usize| fresh.get(parameter).cloned().unwrap_or(Type::Dyn);
        let wanted: Vec<Type> = overload.arguments.iter().map(|of| of.replace(&mut by)).collect();
        let result = overload.result.replace(&mut by);
        self.substitutions.assign_all(types, &wanted).then(|| self.known(&result))
    }

    /// The type two elements have in common. Kubernetes wants one type, except for what is given to `format`.
    fn join(&mut self, ast: &Ast, before: Option<Type>, found: Type) -> Result<Type, Problem> {
        let Some(before) = before else { return Ok(found) };
        let agree = self.substitutions.assign(&before, &found);
        let (a, b) = (self.known(&before), self.known(&found));
        if !self.is_formatted && (!agree || !a.is_like(&b)) {
            return self.refuse(ast, format!("expected {}, but this is {}", a.name(), b.name()), "write dyn(…)");
        }
        Ok(if agree { Type::most_general(&before, &found) } else { Type::Dyn })
    }

    fn unwrapped(&mut self, ast: &Ast, is_optional: bool) -> Result<Type, Problem> {
        let found = self.check(ast)?;
        if !is_optional {
            return Ok(found);
        }
        match self.known(&found) {
            Type::Optional(of) => Ok(Type::clone(&of)),
            other => self.refuse(ast, format!("expected an optional, but this is {}", other.name()), ""),
        }
    }

    fn list(&mut self, elements: &[Element]) -> Result<Type, Problem> {
        self.elements(elements).map(|(of, _)| of)
    }

    /// The type of a list, and of each element.
    fn elements(&mut self, elements: &[Element]) -> Result<(Type, Vec<Type>), Problem> {
        let mut common = None;
        let mut types = Vec::with_capacity(elements.len());
        for element in elements {
            let found = self.unwrapped(&element.value, element.is_optional)?;
            types.push(found.clone());
            common = Some(self.join(&element.value, common, found)?);
        }
        let types = types.iter().map(|of| self.known(of)).collect();
        Ok((Type::list(common.unwrap_or_else(|| self.substitutions.fresh())), types))
    }

    fn map(&mut self, entries: &[Entry]) -> Result<Type, Problem> {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key)?;
            if !self.known(&key).is_key() {
                let name = self.known(&key).name();
                return self.refuse(&entry.key, format!("{name} is no key"), "use a text, a whole number or a boolean");
            }
            keys = Some(self.join(&entry.key, keys, key)?);
            let value = self.unwrapped(&entry.value, entry.is_optional)?;
            values = Some(self.join(&entry.value, values, value)?);
        }
        let mut of = |found: Option<Type>| found.unwrap_or_else(|| self.substitutions.fresh());
        Ok(Type::map(of(keys), of(values)))
    }
}

fn of_literal(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::Text(_) => Type::Text,
        Literal::Bytes(_) => Type::Bytes,
    }
}
