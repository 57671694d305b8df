//! The tree an expression is read into: what was written, with macros already recognised.
//!
//! Comprehensions stay what they are called (`all`, `map`, …) instead of being unfolded into loops: the checker and the
//! evaluator treat each directly, with the meaning cel-go's unfolding gives it.

/// One part of an expression.
#[derive(Debug, Clone)]
pub(super) struct Ast {
    /// Where it begins, in bytes.
    pub(super) at: usize,
    pub(super) kind: Kind,
    /// Of the tree below, itself included: bounded by the parser, so that all that walks it may recurse.
    pub(super) depth: usize,
}

impl Ast {
    pub(super) fn new(at: usize, kind: Kind) -> Self {
        let depth = 1 + kind.deepest();
        Self { at, kind, depth }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

/// One element of a list literal; `?x` is left out when `x` is `optional.none()`.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) value: Ast,
    pub(super) is_optional: bool,
}

/// One entry of a map literal.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Ast,
    pub(super) value: Ast,
    pub(super) is_optional: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Literal),
    Identifier(String),
    /// `a.b`, `a.?b` and, by `has(a.b)`, the question whether it is there.
    Select {
        operand: Box<Ast>,
        field: String,
        mode: Select,
    },
    Call {
        target: Option<Box<Ast>>,
        function: String,
        arguments: Vec<Ast>,
    },
    /// Two or more, left to right.
    And(Vec<Ast>),
    /// Two or more, left to right.
    Or(Vec<Ast>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Comprehension(Box<Comprehension>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Select {
    Value,
    Optional,
    Presence,
}

/// What a macro does with each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    All,
    Exists,
    ExistsOne,
    /// `map` of one variable and `transformList`: a list.
    Map,
    Filter,
    /// A map with the keys of the range.
    TransformMap,
    /// A map of the entries of all results.
    TransformMapEntry,
    /// `optMap`: the range is an optional.
    OptMap,
    /// `optFlatMap`.
    OptFlatMap,
    /// `sortBy`: the list, ordered by the results.
    SortBy,
}

#[derive(Debug, Clone)]
pub(super) struct Comprehension {
    pub(super) fold: Fold,
    pub(super) range: Ast,
    pub(super) variables: Vec<String>,
    /// Of `map`, `transformList` and their like with a condition.
    pub(super) filter: Option<Ast>,
    pub(super) body: Ast,
}

impl Kind {
    fn deepest(&self) -> usize {
        let of = |parts: &[Ast]| parts.iter().map(|part| part.depth).max().unwrap_or(0);
        match self {
            Self::Literal(_) | Self::Identifier(_) => 0,
            Self::Select { operand, .. } => operand.depth,
            Self::Call { target, arguments, .. } => target.as_ref().map_or(0, |target| target.depth).max(of(arguments)),
            Self::And(parts) | Self::Or(parts) => of(parts),
            Self::List(elements) => elements.iter().map(|element| element.value.depth).max().unwrap_or(0),
            Self::Map(entries) => entries.iter().map(|entry| entry.key.depth.max(entry.value.depth)).max().unwrap_or(0),
            Self::Comprehension(comprehension) => {
                let filter = comprehension.filter.as_ref().map_or(0, |filter| filter.depth);
                comprehension.range.depth.max(comprehension.body.depth).max(filter)
            }
        }
    }
}
