//! Types as cel-go's checker knows them, and the rules by which one may stand for another.
//!
//! Follows `checker/types.go` of cel-go 0.26: a parameter takes the most general type it meets, `dyn` goes with everything.
//! Whether two types agree is a question to a [`Substitutions`], which remembers what parameters stand for.

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// A type of a library, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type with named fields.
    Struct(&'static str),
    /// The type of a type.
    Of(Arc<Type>),
    Parameter(usize),
}

impl Type {
    pub(super) fn list(of: Type) -> Self {
        Self::List(Arc::new(of))
    }

    pub(super) fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub(super) fn optional(of: Type) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// As people write it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Dyn | Self::Parameter(_) => "dyn".into(),
            Self::Null => "null_type".into(),
            Self::Bool => "bool".into(),
            Self::Int => "int".into(),
            Self::Uint => "uint".into(),
            Self::Double => "double".into(),
            Self::Text => "string".into(),
            Self::Bytes => "bytes".into(),
            Self::Timestamp => "google.protobuf.Timestamp".into(),
            Self::Duration => "google.protobuf.Duration".into(),
            Self::List(of) => format!("list({})", of.name()),
            Self::Map(of) => format!("map({}, {})", of.0.name(), of.1.name()),
            Self::Optional(of) => format!("optional_type({})", of.name()),
            Self::Opaque(name) | Self::Struct(name) => (*name).into(),
            Self::Of(of) => format!("type({})", of.name()),
        }
    }

    fn is_nullable(&self) -> bool {
        matches!(
            self,
            Self::Null | Self::Optional(_) | Self::Opaque(_) | Self::Struct(_) | Self::Timestamp | Self::Duration
        )
    }

    /// Whether `self` says no more than `other`.
    fn is_as_general_as(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Parameter(_), _) => true,
            (_, Self::Dyn | Self::Parameter(_)) => false,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.is_as_general_as(b),
            (Self::Map(a), Self::Map(b)) => a.0.is_as_general_as(&b.0) && a.1.is_as_general_as(&b.1),
            (Self::Of(_), Self::Of(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether values of it can be keys of a map.
    pub(super) fn is_key(&self) -> bool {
        matches!(self, Self::Dyn | Self::Parameter(_) | Self::Text | Self::Int | Self::Uint | Self::Bool)
    }

    /// Whether two types are the same, type parameters aside.
    pub(super) fn is_like(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Parameter(_), Self::Parameter(_)) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.is_like(b),
            (Self::Map(a), Self::Map(b)) => a.0.is_like(&b.0) && a.1.is_like(&b.1),
            (Self::Of(a), Self::Of(b)) => a.is_like(b),
            (a, b) => a == b,
        }
    }

    pub(super) fn most_general(a: &Type, b: &Type) -> Type {
        if a.is_as_general_as(b) { a.clone() } else { b.clone() }
    }

    /// Every parameter replaced by what `by` says.
    pub(super) fn replace(&self, by: &mut impl FnMut(usize) -> Type) -> Type {
        match self {
            Self::Parameter(parameter) => by(*parameter),
            Self::List(of) => Self::list(of.replace(by)),
            Self::Map(of) => Self::map(of.0.replace(by), of.1.replace(by)),
            Self::Optional(of) => Self::optional(of.replace(by)),
            Self::Of(of) => Self::Of(Arc::new(of.replace(by))),
            other => other.clone(),
        }
    }
}

/// What parameters stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Substitutions(Vec<Option<Type>>);

impl Substitutions {
    /// A parameter nothing is known of.
    pub(super) fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Parameter(self.0.len() - 1)
    }

    fn find(&self, parameter: usize) -> Option<&Type> {
        self.0.get(parameter).and_then(Option::as_ref)
    }

    fn set(&mut self, parameter: usize, to: Type) {
        if let Some(slot) = self.0.get_mut(parameter) {
            *slot = Some(to);
        }
    }

    /// `of` with all that is known put in.
    pub(super) fn apply(&self, of: &Type) -> Type {
        of.replace(&mut |parameter| match self.find(parameter) {
            Some(known) => self.apply(known),
            None => Type::Parameter(parameter),
        })
    }

    /// Whether `b` may stand where `a` is; remembers what that makes of parameters, if so.
    pub(super) fn assign(&mut self, a: &Type, b: &Type) -> bool {
        self.assign_all(std::slice::from_ref(a), std::slice::from_ref(b))
    }

    /// The same for several at once: all or none.
    pub(super) fn assign_all(&mut self, a: &[Type], b: &[Type]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        let mut copy = self.clone();
        if a.iter().zip(b).all(|(a, b)| copy.agree(a, b)) {
            *self = copy;
            return true;
        }
        false
    }

    fn agree(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Parameter(parameter) = b {
            match self.bind(a, *parameter) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Parameter(parameter) = a {
            return self.bind(b, *parameter).0;
        }
        match (a, b) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.agree(a, b),
            (Type::Map(a), Type::Map(b)) => self.agree(&a.0, &b.0) && self.agree(&a.1, &b.1),
            (Type::Of(_), Type::Of(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Whether `parameter` may stand for `meant`, and whether it already stood for something.
    fn bind(&mut self, meant: &Type, parameter: usize) -> (bool, bool) {
        if *meant == Type::Parameter(parameter) {
            return (true, true);
        }
        if let Some(known) = self.find(parameter).cloned() {
            if known == *meant {
                return (true, true);
            }
            if self.agree(meant, &known) {
                let general = Type::most_general(meant, &known);
                if !self.occurs(parameter, &general) {
                    self.set(parameter, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.occurs(parameter, meant) {
            return (false, false);
        }
        self.set(parameter, meant.clone());
        (true, false)
    }

    fn occurs(&self, parameter: usize, within: &Type) -> bool {
        match within {
            Type::Parameter(other) => {
                *other == parameter || self.find(*other).is_some_and(|known| self.occurs(parameter, known))
            }
            Type::List(of) | Type::Optional(of) | Type::Of(of) => self.occurs(parameter, of),
            Type::Map(of) => self.occurs(parameter, &of.0) || self.occurs(parameter, &of.1),
            _ => false,
        }
    }
}
