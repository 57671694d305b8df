//! An expression ready to run: names resolved, literals made, patterns compiled.

use super::{
    ast::{Fold, Select},
    meter::Meter,
    problem::EvaluationError,
    value::Value,
};

/// A function over evaluated arguments; the receiver is the first.
pub(super) type Native = for<'v> fn(&[Value<'v>], &mut Meter) -> Result<Value<'v>, EvaluationError>;

/// A position of a comprehension's variable, counted from the outermost.
pub(super) type Slot = usize;

#[derive(Debug)]
pub(super) enum Node {
    Constant(Value<'static>),
    /// A whole variable of the scope.
    Variable(Slot),
    /// A field of a variable of the scope, so that the rest of it need not be read.
    Field {
        variable: Slot,
        name: Box<str>,
        mode: Select,
    },
    Local(Slot),
    Select {
        operand: Box<Node>,
        field: Box<str>,
        mode: Select,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        is_optional: bool,
    },
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Not(Box<Node>),
    Conditional(Box<[Node; 3]>),
    Binary {
        operator: Operator,
        operands: Box<[Node; 2]>,
    },
    /// `a.or(b)` and `a.orValue(b)`: `b` is evaluated only when needed.
    OrElse {
        operands: Box<[Node; 2]>,
        unwraps: bool,
    },
    List(Box<[(Node, bool)]>),
    Map(Box<[(Node, Node, bool)]>),
    Call {
        function: Native,
        arguments: Box<[Node]>,
    },
    Fold(Box<FoldNode>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug)]
pub(super) struct FoldNode {
    pub(super) fold: Fold,
    pub(super) range: Node,
    /// One or two.
    pub(super) variables: usize,
    pub(super) filter: Option<Node>,
    pub(super) body: Node,
}
