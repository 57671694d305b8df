//! What the names in an expression stand for, read no further than expressions look.
//!
//! One scope serves all rules of one decision. An object is read field by field: a rule that asks about `object.spec`
//! never makes a tree of `object.data`. What was read is kept; reading is linear in the request and costs no fuel.

mod subject;

use super::{
    convert::{self, Fields, key_value},
    declarations::VARIABLES,
    meter::Meter,
    problem::EvaluationError,
    program::Slot,
    value::{Map, Shared, Value},
};
use crate::core::action::Action;
use serde_json::value::RawValue;
use std::{borrow::Cow, cell::OnceCell, collections::BTreeMap};

/// The pieces of JSON a decision is about. All may be missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Documents<'a> {
    /// `object`: as it would be.
    pub object: Option<&'a RawValue>,
    /// `oldObject`: as it is.
    pub old_object: Option<&'a RawValue>,
    /// `request.options`.
    pub options: Option<&'a RawValue>,
    /// `params`.
    pub params: Option<&'a RawValue>,
    /// Labels of the namespace, for `namespaceObject`; without them it is null.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
}

/// The variables of an expression.
#[derive(Default)]
pub struct Scope<'a> {
    slots: [Variable<'a>; VARIABLES.len()],
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

type Read<'a> = OnceCell<Result<Value<'a>, EvaluationError>>;

#[derive(Default)]
struct Variable<'a> {
    source: Source<'a>,
    whole: Read<'a>,
    fields: OnceCell<Result<Option<Vec<Field<'a>>>, EvaluationError>>,
}

struct Field<'a> {
    name: Cow<'a, str>,
    raw: &'a RawValue,
    value: Read<'a>,
}

#[derive(Default)]
enum Source<'a> {
    #[default]
    Null,
    Json(&'a RawValue),
    Request(&'a Action, Documents<'a>),
    Agent(&'a Action),
    Action(&'a Action),
    Run(&'a Action),
    Namespace(&'a str, &'a BTreeMap<String, String>),
}

impl<'a> Scope<'a> {
    /// The variables of a decision about `action`.
    #[must_use]
    pub fn new(action: &'a Action, documents: Documents<'a>) -> Self {
        let json = |raw: Option<&'a RawValue>| raw.map_or(Source::Null, Source::Json);
        let namespace = match (&action.namespace, documents.namespace_labels) {
            (Some(namespace), Some(labels)) => Source::Namespace(namespace, labels),
            _ => Source::Null,
        };
        let slots = [
            json(documents.object),
            json(documents.old_object),
            json(documents.params),
            Source::Request(action, documents),
            namespace,
            Source::Agent(action),
            Source::Action(action),
            Source::Run(action),
        ];
        Self { slots: slots.map(|source| Variable { source, ..Variable::default() }) }
    }

    /// Variables from JSON, by name; names that are no variables are left out.
    #[must_use]
    pub fn from_json(variables: impl IntoIterator<Item = (&'a str, &'a RawValue)>) -> Self {
        let mut scope = Self::default();
        for (name, raw) in variables {
            let position = VARIABLES.into_iter().position(|variable| variable == name);
            if let Some(slot) = position.and_then(|position| scope.slots.get_mut(position)) {
                slot.source = Source::Json(raw);
            }
        }
        scope
    }

    fn slot(&self, slot: Slot) -> Result<&Variable<'a>, EvaluationError> {
        self.slots.get(slot).ok_or(EvaluationError::NO_OVERLOAD)
    }

    pub(super) fn variable(&self, slot: Slot, meter: &mut Meter) -> Result<Value<'_>, EvaluationError> {
        meter.spend(1)?;
        self.slot(slot)?.whole().map(Value::lend)
    }

    /// `None` when it is not there.
    pub(super) fn field(
        &self,
        slot: Slot,
        name: &str,
        meter: &mut Meter,
    ) -> Result<Option<Value<'_>>, EvaluationError> {
        meter.spend(1)?;
        let variable = self.slot(slot)?;
        if let (Some(fields), None) = (variable.fields()?, variable.whole.get()) {
            let field = fields.iter().rfind(|field| field.name == name);
            return field.map(|field| kept(&field.value, || convert::value(field.raw)).map(Value::lend)).transpose();
        }
        Ok(match variable.whole()? {
            Value::Map(map) => map.field(name).map(Value::lend),
            _ => None,
        })
    }
}

impl<'a> Variable<'a> {
    fn whole(&self) -> Result<&Value<'a>, EvaluationError> {
        kept(&self.whole, || self.source.read())
    }

    fn fields(&self) -> Result<Option<&Vec<Field<'a>>>, EvaluationError> {
        let Source::Json(raw) = &self.source else { return Ok(None) };
        let fields = self.fields.get_or_init(|| {
            let fields = convert::fields(raw)?;
            Ok(fields.map(|Fields(fields)| {
                fields.into_iter().map(|(name, raw)| Field { name, raw, value: Read::default() }).collect()
            }))
        });
        fields.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }
}

fn kept<'c, 'a>(
    cell: &'c Read<'a>,
    read: impl FnOnce() -> Result<Value<'a>, EvaluationError>,
) -> Result<&'c Value<'a>, EvaluationError> {
    cell.get_or_init(read).as_ref().map_err(Clone::clone)
}

impl<'a> Source<'a> {
    fn read(&self) -> Result<Value<'a>, EvaluationError> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Json(raw) => return convert::value(raw),
            Self::Request(action, documents) => return subject::request(action, documents),
            Self::Agent(action) => subject::agent(action),
            Self::Action(action) => subject::action(action),
            Self::Run(action) => subject::run(action),
            Self::Namespace(name, labels) => subject::namespace(name, labels),
        })
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Shared::Borrowed(text))
}

fn map<'a>(entries: Vec<(&'a str, Value<'a>)>) -> Value<'a> {
    let entries = entries.into_iter().map(|(key, value)| (key_value(Cow::Borrowed(key)), value)).collect();
    Value::Map(Shared::Owned(Map::new(entries).into()))
}
