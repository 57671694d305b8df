//! Tokens into a tree, by CEL's grammar, with bounds on length, size and depth.
//!
//! Binary operators are parsed by climbing precedence, so that depth of recursion follows brackets, not operators. What
//! a macro looks like is known to `macros`.

use super::{
    ast::{Ast, Element, Entry, Kind, Literal, Select},
    lexer::{Spanned, Token, problem, tokens},
    macros,
    problem::Problem,
};

/// Longest text, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// Most parts.
const MAX_NODES: usize = 4096;
/// Deepest tree.
const MAX_DEPTH: usize = 100;
/// Deepest brackets.
const MAX_NESTING: usize = 32;

/// Words that are no identifiers.
const RESERVED: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "true",
    "false",
];

/// Operators by precedence, loosest first, below `&&`.
const BINARY: [&[(&str, &str)]; 3] = [
    &[("==", "_==_"), ("!=", "_!=_"), ("<=", "_<=_"), (">=", "_>=_"), ("<", "_<_"), (">", "_>_"), ("in", "@in")],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Ast, Problem> {
    if text.len() > MAX_TEXT {
        return Err(problem(text, 0, format!("is longer than {MAX_TEXT} bytes"), "split it into several rules"));
    }
    let mut parser = Parser { text, tokens: tokens(text)?, position: 0, nodes: 0, nesting: 0 };
    let ast = parser.expression()?;
    match parser.tokens.get(parser.position) {
        None => Ok(ast),
        Some(rest) => Err(problem(text, rest.at, "the expression should end here", "join parts with && or ||")),
    }
}

pub(super) struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Spanned>,
    position: usize,
    nodes: usize,
    nesting: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position).map(|spanned| &spanned.token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.position).map_or(self.text.len(), |spanned| spanned.at)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.position += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Problem> {
        if self.take(symbol) { Ok(()) } else { self.refuse(format!("{symbol:?} is missing"), "") }
    }

    fn refuse<T>(&self, message: impl Into<String>, hint: &str) -> Result<T, Problem> {
        Err(problem(self.text, self.at(), message, hint))
    }

    /// A node, unless the tree has become too big.
    pub(super) fn node(&mut self, at: usize, kind: Kind) -> Result<Ast, Problem> {
        self.nodes += 1;
        let ast = Ast::new(at, kind);
        if self.nodes > MAX_NODES || ast.depth > MAX_DEPTH {
            return Err(problem(self.text, at, "is too big or too deep", "split it into several rules"));
        }
        Ok(ast)
    }

    /// A problem at `at`.
    pub(super) fn refuse_at<T>(&self, at: usize, message: impl Into<String>, hint: &str) -> Result<T, Problem> {
        Err(problem(self.text, at, message, hint))
    }

    fn expression(&mut self) -> Result<Ast, Problem> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return self.refuse("brackets are nested too deep", "split it into several rules");
        }
        let at = self.at();
        let condition = self.either()?;
        let ast = if self.take("?") {
            let yes = self.either()?;
            self.expect(":")?;
            let no = self.expression()?;
            let arguments = vec![condition, yes, no];
            self.node(at, Kind::Call { target: None, function: "_?_:_".to_owned(), arguments })?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(ast)
    }

    fn either(&mut self) -> Result<Ast, Problem> {
        let at = self.at();
        let mut parts = vec![self.both()?];
        while self.take("||") {
            parts.push(self.both()?);
        }
        self.joined(at, parts, Kind::Or)
    }

    fn both(&mut self) -> Result<Ast, Problem> {
        let at = self.at();
        let mut parts = vec![self.binary(0)?];
        while self.take("&&") {
            parts.push(self.binary(0)?);
        }
        self.joined(at, parts, Kind::And)
    }

    fn joined(&mut self, at: usize, mut parts: Vec<Ast>, kind: fn(Vec<Ast>) -> Kind) -> Result<Ast, Problem> {
        match (parts.pop(), parts.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                parts.push(last);
                self.node(at, kind(parts))
            }
            (None, _) => self.refuse("an operand is missing", ""),
        }
    }

    fn binary(&mut self, level: usize) -> Result<Ast, Problem> {
        let Some(operators) = BINARY.get(level) else { return self.unary() };
        let at = self.at();
        let mut left = self.binary(level + 1)?;
        while let Some(function) = self.operator(operators) {
            self.position += 1;
            let right = self.binary(level + 1)?;
            let arguments = vec![left, right];
            left = self.node(at, Kind::Call { target: None, function: function.to_owned(), arguments })?;
        }
        Ok(left)
    }

    fn operator(&self, operators: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let name = match self.peek()? {
            Token::Symbol(symbol) => *symbol,
            Token::Identifier(word) => word.as_str(),
            Token::Int(_) | Token::Uint(_) | Token::Double(_) | Token::Text(_) | Token::Bytes(_) => return None,
        };
        operators.iter().find(|(symbol, _)| *symbol == name).map(|(_, function)| *function)
    }

    fn unary(&mut self) -> Result<Ast, Problem> {
        let at = self.at();
        let (symbol, function) = if self.is("!") { ("!", "!_") } else { ("-", "-_") };
        let mut count = 0;
        while self.take(symbol) {
            count += 1;
        }
        if symbol == "-" && count > 0 && matches!(self.peek(), Some(Token::Int(_) | Token::Double(_))) {
            let literal = self.primary(true)?;
            let member = self.member(at, literal)?;
            return self.negated(at, member, count - 1, function);
        }
        let primary = self.primary(false)?;
        let member = self.member(at, primary)?;
        self.negated(at, member, count, function)
    }

    /// An even number of signs is none.
    fn negated(&mut self, at: usize, member: Ast, count: usize, function: &str) -> Result<Ast, Problem> {
        if count.is_multiple_of(2) {
            return Ok(member);
        }
        self.node(at, Kind::Call { target: None, function: function.to_owned(), arguments: vec![member] })
    }

    fn member(&mut self, at: usize, primary: Ast) -> Result<Ast, Problem> {
        let mut operand = primary;
        loop {
            operand = if self.take(".") {
                self.selected(at, operand)?
            } else if self.take("[") {
                let function = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                let arguments = vec![operand, index];
                self.node(at, Kind::Call { target: None, function: function.to_owned(), arguments })?
            } else if self.is("{") && matches!(operand.kind, Kind::Identifier(_) | Kind::Select { .. }) {
                return self.refuse("messages cannot be made here", "write a map: {'key': value}");
            } else {
                return Ok(operand);
            };
        }
    }

    fn selected(&mut self, at: usize, operand: Ast) -> Result<Ast, Problem> {
        let mode = if self.take("?") { Select::Optional } else { Select::Value };
        let name = self.name()?;
        if mode == Select::Value && self.take("(") {
            let arguments = self.arguments(")")?;
            return macros::receiver(self, at, operand, name, arguments);
        }
        self.node(at, Kind::Select { operand: Box::new(operand), field: name, mode })
    }

    /// The name of a field or function.
    fn name(&mut self) -> Result<String, Problem> {
        match self.peek() {
            Some(Token::Identifier(name)) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => {
                let name = name.clone();
                self.position += 1;
                Ok(name)
            }
            _ => self.refuse("a name is missing", "write ['…'] for keys that are no names"),
        }
    }

    fn arguments(&mut self, end: &'static str) -> Result<Vec<Ast>, Problem> {
        let mut arguments = Vec::new();
        if self.take(end) {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if self.take(end) {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }

    fn primary(&mut self, is_negative: bool) -> Result<Ast, Problem> {
        let at = self.at();
        let Some(token) = self.peek().cloned() else { return self.refuse("an operand is missing", "") };
        self.position += 1;
        let literal = match token {
            Token::Int(digits) => Literal::Int(self.int(at, &digits, is_negative)?),
            Token::Uint(digits) => Literal::Uint(self.uint(at, &digits)?),
            Token::Double(value) => Literal::Double(if is_negative { -value } else { value }),
            Token::Text(text) => Literal::Text(text),
            Token::Bytes(octets) => Literal::Bytes(octets),
            Token::Identifier(name) => return self.named(at, name),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => return self.list(at),
            Token::Symbol("{") => return self.map(at),
            Token::Symbol(".") if matches!(self.peek(), Some(Token::Identifier(_))) => {
                let name = self.name()?;
                return self.named(at, name);
            }
            Token::Symbol(symbol) => return self.refuse_at(at, format!("{symbol:?} does not belong here"), ""),
        };
        self.node(at, Kind::Literal(literal))
    }

    fn int(&self, at: usize, digits: &str, is_negative: bool) -> Result<i64, Problem> {
        let (radix, body) = digits.strip_prefix("0x").map_or((10, digits), |hex| (16, hex));
        let signed = if is_negative { format!("-{body}") } else { body.to_owned() };
        i64::from_str_radix(&signed, radix)
            .or_else(|_| self.refuse_at(at, "does not fit 64 bits", "write a smaller number, or one ending in u"))
    }

    fn uint(&self, at: usize, digits: &str) -> Result<u64, Problem> {
        let (radix, body) = digits.strip_prefix("0x").map_or((10, digits), |hex| (16, hex));
        u64::from_str_radix(body, radix)
            .or_else(|_| self.refuse_at(at, "does not fit 64 bits", "write a smaller number"))
    }

    fn named(&mut self, at: usize, name: String) -> Result<Ast, Problem> {
        match name.as_str() {
            "true" | "false" => return self.node(at, Kind::Literal(Literal::Bool(name == "true"))),
            "null" => return self.node(at, Kind::Literal(Literal::Null)),
            word if RESERVED.contains(&word) => {
                return self.refuse_at(at, format!("{word:?} is a reserved word"), "use another name");
            }
            _ => {}
        }
        if self.take("(") {
            let arguments = self.arguments(")")?;
            return macros::global(self, at, name, arguments);
        }
        self.node(at, Kind::Identifier(name))
    }

    fn list(&mut self, at: usize) -> Result<Ast, Problem> {
        let mut elements = Vec::new();
        while !self.take("]") {
            let is_optional = self.take("?");
            elements.push(Element { value: self.expression()?, is_optional });
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        self.node(at, Kind::List(elements))
    }

    fn map(&mut self, at: usize) -> Result<Ast, Problem> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let is_optional = self.take("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push(Entry { key, value: self.expression()?, is_optional });
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        self.node(at, Kind::Map(entries))
    }
}
