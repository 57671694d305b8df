//! From the checked tree to a program.
//!
//! What is made of literals alone is computed here, once. A literal pattern is compiled here, and refused when it is none.

use super::{
    ast::{Ast, Comprehension, Element, Entry, Kind, Literal, Select},
    checker::qualified,
    declarations, evaluate,
    lexer::problem,
    library,
    meter::Fuel,
    problem::Problem,
    program::{FoldNode, Node, Operator},
    value::{Shared, Value},
};

/// What one constant part may cost.
const FOLDING: Fuel = Fuel::new(10_000);

/// Functions that turn one type into another.
const CONVERSIONS: [&str; 9] = ["bool", "bytes", "double", "dyn", "duration", "int", "string", "timestamp", "uint"];

/// Most patterns written as literals.
const MAX_PATTERNS: usize = 32;

pub(super) fn lower(text: &str, ast: &Ast) -> Result<Node, Problem> {
    Lowerer { text, locals: Vec::new(), patterns: 0 }.lower(ast)
}

struct Lowerer<'t> {
    text: &'t str,
    locals: Vec<String>,
    patterns: usize,
}

impl Lowerer<'_> {
    fn lower(&mut self, ast: &Ast) -> Result<Node, Problem> {
        match &ast.kind {
            Kind::Literal(literal) => Ok(Node::Constant(constant(literal))),
            Kind::Identifier(name) => self.identifier(ast, name),
            Kind::Select { operand, field, mode } => self.select(ast, operand, field, *mode),
            Kind::Call { target, function, arguments } => self.call(ast, target.as_deref(), function, arguments),
            Kind::And(parts) => Ok(Node::And(self.all(parts)?)),
            Kind::Or(parts) => Ok(Node::Or(self.all(parts)?)),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn all<'a>(&mut self, parts: impl IntoIterator<Item = &'a Ast>) -> Result<Box<[Node]>, Problem> {
        parts.into_iter().map(|part| self.lower(part)).collect()
    }

    fn pair(&mut self, a: &Ast, b: &Ast) -> Result<Box<[Node; 2]>, Problem> {
        Ok(Box::new([self.lower(a)?, self.lower(b)?]))
    }

    fn identifier(&self, ast: &Ast, name: &str) -> Result<Node, Problem> {
        if let Some(slot) = self.locals.iter().rposition(|local| local == name) {
            return Ok(Node::Local(slot));
        }
        if let Some(slot) = declarations::VARIABLES.into_iter().position(|variable| variable == name) {
            return Ok(Node::Variable(slot));
        }
        match type_value(name) {
            Some(node) => Ok(node),
            None => Err(problem(self.text, ast.at, format!("{name:?} is not declared"), "")),
        }
    }

    fn select(&mut self, ast: &Ast, operand: &Ast, field: &str, mode: Select) -> Result<Node, Problem> {
        if mode == Select::Value
            && let Some(node) = qualified(ast).and_then(|name| type_value(&name))
        {
            return Ok(node);
        }
        Ok(match self.lower(operand)? {
            Node::Variable(variable) => Node::Field { variable, name: field.into(), mode },
            operand => Node::Select { operand: Box::new(operand), field: field.into(), mode },
        })
    }

    fn call(&mut self, ast: &Ast, target: Option<&Ast>, name: &str, arguments: &[Ast]) -> Result<Node, Problem> {
        if let (None, [a, b]) = (target, arguments) {
            if let Some(operator) = operator(name) {
                return Ok(folded(Node::Binary { operator, operands: self.pair(a, b)? }));
            }
            if let "_[_]" | "_[?_]" = name {
                let (operand, index) = (Box::new(self.lower(a)?), Box::new(self.lower(b)?));
                return Ok(Node::Index { operand, index, is_optional: name == "_[?_]" });
            }
        }
        if let (Some(target), "or" | "orValue", [other]) = (target, name, arguments) {
            return Ok(Node::OrElse { operands: self.pair(target, other)?, unwraps: name == "orValue" });
        }
        match (target, name, arguments) {
            (None, "!_", [operand]) => return Ok(Node::Not(Box::new(self.lower(operand)?))),
            (None, "_?_:_", [condition, yes, no]) => {
                let parts = [self.lower(condition)?, self.lower(yes)?, self.lower(no)?];
                return Ok(Node::Conditional(Box::new(parts)));
            }
            _ => {}
        }
        let whole = target.and_then(qualified).map(|prefix| format!("{prefix}.{name}"));
        let whole = whole.filter(|whole| declarations::function(whole).is_some());
        let receiver = if whole.is_some() { None } else { target };
        let name = whole.as_deref().unwrap_or(name);
        let mut nodes = self.all(receiver.into_iter().chain(arguments))?.into_vec();
        self.compile_patterns(ast, name, &mut nodes)?;
        let Some(function) = library::function(name) else {
            return Err(problem(self.text, ast.at, format!("{name} is not available"), ""));
        };
        let node = folded(Node::Call { function, arguments: nodes.into() });
        if matches!(node, Node::Call { .. }) && is_constant(ast) {
            let hint = "a literal is converted when the expression is loaded";
            return Err(problem(self.text, ast.at, format!("this is no {name}"), hint));
        }
        Ok(node)
    }

    /// Compiles a pattern that is written as a literal.
    fn compile_patterns(&mut self, ast: &Ast, name: &str, nodes: &mut [Node]) -> Result<(), Problem> {
        if !matches!(name, "matches" | "find" | "findAll") {
            return Ok(());
        }
        let Some(node) = nodes.get_mut(1) else { return Ok(()) };
        let Node::Constant(Value::Text(pattern)) = node else { return Ok(()) };
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return Err(problem(
                self.text,
                ast.at,
                format!("has more than {MAX_PATTERNS} patterns"),
                "join them with |",
            ));
        }
        match library::regex::compile(pattern) {
            Ok(regex) => {
                *node = Node::Constant(Value::Pattern(regex.into()));
                Ok(())
            }
            Err(message) => Err(problem(self.text, ast.at, message, "patterns are in RE2 syntax")),
        }
    }

    fn list(&mut self, elements: &[Element]) -> Result<Node, Problem> {
        let nodes = elements.iter().map(|element| Ok((self.lower(&element.value)?, element.is_optional)));
        Ok(folded(Node::List(nodes.collect::<Result<_, Problem>>()?)))
    }

    fn map(&mut self, entries: &[Entry]) -> Result<Node, Problem> {
        let nodes =
            entries.iter().map(|entry| Ok((self.lower(&entry.key)?, self.lower(&entry.value)?, entry.is_optional)));
        Ok(folded(Node::Map(nodes.collect::<Result<_, Problem>>()?)))
    }

    fn comprehension(&mut self, of: &Comprehension) -> Result<Node, Problem> {
        let range = self.lower(&of.range)?;
        let before = self.locals.len();
        self.locals.extend(of.variables.iter().cloned());
        let filter = of.filter.as_ref().map(|filter| self.lower(filter)).transpose()?;
        let body = self.lower(&of.body)?;
        self.locals.truncate(before);
        let variables = of.variables.len();
        Ok(Node::Fold(Box::new(FoldNode { fold: of.fold, range, variables, filter, body })))
    }
}

/// Whether cel-go computes it while loading, and refuses it when that fails: literals, and conversions of such.
fn is_constant(ast: &Ast) -> bool {
    match &ast.kind {
        Kind::Literal(_) => true,
        Kind::List(elements) => elements.iter().all(|element| is_constant(&element.value)),
        Kind::Map(entries) => entries.iter().all(|entry| is_constant(&entry.key) && is_constant(&entry.value)),
        Kind::Call { target: None, function, arguments } => {
            CONVERSIONS.contains(&function.as_str()) && arguments.iter().all(is_constant)
        }
        _ => false,
    }
}

fn type_value(name: &str) -> Option<Node> {
    declarations::type_named(name).map(|of| Node::Constant(Value::Type(library::core::type_name(&of))))
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::Text(text) => Value::text(&**text),
        Literal::Bytes(octets) => Value::Bytes(Shared::Owned((&**octets).into())),
    }
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "_==_" => Operator::Equal,
        "_!=_" => Operator::NotEqual,
        "_<_" => Operator::Less,
        "_<=_" => Operator::LessOrEqual,
        "_>_" => Operator::Greater,
        "_>=_" => Operator::GreaterOrEqual,
        "@in" => Operator::In,
        "_+_" => Operator::Add,
        "_-_" => Operator::Subtract,
        "_*_" => Operator::Multiply,
        "_/_" => Operator::Divide,
        "_%_" => Operator::Remainder,
        _ => return None,
    })
}

/// The value instead of the node, when all it is made of is constant and it has one.
fn folded(node: Node) -> Node {
    let is_constant = |node: &Node| matches!(node, Node::Constant(_));
    let foldable = match &node {
        Node::Binary { operands, .. } => operands.iter().all(is_constant),
        Node::List(elements) => elements.iter().all(|(value, _)| is_constant(value)),
        Node::Map(entries) => entries.iter().all(|(key, value, _)| is_constant(key) && is_constant(value)),
        Node::Call { arguments, .. } => arguments.iter().all(is_constant),
        _ => false,
    };
    if !foldable {
        return node;
    }
    evaluate::constant(&node, FOLDING).map_or(node, Node::Constant)
}
