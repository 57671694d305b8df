//! Text into tokens, by the token rules of CEL's grammar.
//!
//! Strings and bytes come out unescaped, numbers as written: `-` decides about the range of an integer, and only the
//! parser knows it.

use super::problem::Problem;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Identifier(String),
    /// Decimal or hexadecimal digits.
    Int(String),
    Uint(String),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Symbol(&'static str),
}

#[derive(Debug, Clone)]
pub(super) struct Spanned {
    pub(super) at: usize,
    pub(super) token: Token,
}

/// Longest first.
const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "`",
];

/// A problem at byte `at` of `text`.
pub(super) fn problem(text: &str, at: usize, message: impl Into<String>, hint: &str) -> Problem {
    let column = text.char_indices().take_while(|(position, _)| *position < at).count() + 1;
    Problem { message: message.into(), column, hint: hint.to_owned() }
}

/// All tokens of `text`.
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, Problem> {
    let mut lexer = Lexer { text, at: 0 };
    let mut found = Vec::new();
    while let Some(token) = lexer.next()? {
        found.push(token);
    }
    Ok(found)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn refuse<T>(&self, message: impl Into<String>, hint: &str) -> Result<T, Problem> {
        Err(problem(self.text, self.at, message, hint))
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Option<Spanned>, Problem> {
        self.skip_blanks();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        if let Some(token) = self.quoted()? {
            return Ok(Some(Spanned { at, token }));
        }
        let second = rest.chars().nth(1);
        if first.is_ascii_digit() || (first == '.' && second.is_some_and(|next| next.is_ascii_digit())) {
            let token = self.number()?;
            return Ok(Some(Spanned { at, token }));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.at += end;
            let name = rest.get(..end).unwrap_or_default().to_owned();
            return Ok(Some(Spanned { at, token: Token::Identifier(name) }));
        }
        let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) else {
            return self.refuse(format!("{first:?} means nothing here"), "put text between quotes");
        };
        self.at += symbol.len();
        Ok(Some(Spanned { at, token: Token::Symbol(symbol) }))
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let rest = self.rest();
        let (token, length) = number(rest);
        let Some(token) = token else { return self.refuse("is no number", "write digits") };
        self.at += length;
        Ok(token)
    }

    /// A string or bytes literal, when one begins here.
    fn quoted(&mut self) -> Result<Option<Token>, Problem> {
        let rest = self.rest();
        let (prefix, is_bytes, is_raw) = prefix(rest);
        let body = rest.get(prefix..).unwrap_or_default();
        let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| body.starts_with(quote)) else {
            return Ok(None);
        };
        // `""` followed by anything but a third quote is the empty string.
        let inner = body.get(quote.len()..).unwrap_or_default();
        let Some(length) = closing(inner, quote, is_raw) else {
            return self.refuse("the text has no end", "close the quotes");
        };
        let content = inner.get(..length).unwrap_or_default();
        let octets = match super::escape::unescape(content, is_raw, is_bytes) {
            Ok(octets) => octets,
            Err(message) => return self.refuse(message, "write \\\\ for a backslash, or r'…' for a raw text"),
        };
        let token = if is_bytes {
            Token::Bytes(octets.into())
        } else {
            match String::from_utf8(octets) {
                Ok(text) => Token::Text(text.into()),
                Err(_) => return self.refuse("the text is not UTF-8", "write b'…' for bytes"),
            }
        };
        self.at += prefix + 2 * quote.len() + length;
        Ok(Some(token))
    }
}

/// Length of the letters before the quote, and what they say.
fn prefix(rest: &str) -> (usize, bool, bool) {
    let mut letters = rest.chars();
    let (first, second) = (letters.next(), letters.next());
    let raw = |c: Option<char>| matches!(c, Some('r' | 'R'));
    if matches!(first, Some('b' | 'B')) {
        return if raw(second) { (2, true, true) } else { (1, true, false) };
    }
    if raw(first) { (1, false, true) } else { (0, false, false) }
}

/// Where the closing quote begins.
fn closing(inner: &str, quote: &str, is_raw: bool) -> Option<usize> {
    let mut escaped = false;
    for (position, c) in inner.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        if c == '\\' && !is_raw {
            escaped = true;
            continue;
        }
        if quote.len() == 1 && (c == '\n' || c == '\r') {
            return None;
        }
        if inner.get(position..).is_some_and(|tail| tail.starts_with(quote)) {
            return Some(position);
        }
    }
    None
}

/// The number `rest` begins with, and its length.
fn number(rest: &str) -> (Option<Token>, usize) {
    let digits = |from: usize, hex: bool| {
        let tail = rest.get(from..).unwrap_or_default();
        tail.find(|c: char| if hex { !c.is_ascii_hexdigit() } else { !c.is_ascii_digit() }).unwrap_or(tail.len())
    };
    let is = |at: usize, wanted: &[char]| rest.get(at..).is_some_and(|tail| tail.starts_with(wanted));
    let slice = |end: usize| rest.get(..end).unwrap_or_default().to_owned();
    if rest.starts_with("0x") && digits(2, true) > 0 {
        let end = 2 + digits(2, true);
        return if is(end, &['u', 'U']) {
            (Some(Token::Uint(slice(end))), end + 1)
        } else {
            (Some(Token::Int(slice(end))), end)
        };
    }
    let whole = digits(0, false);
    let mut end = whole;
    if is(end, &['.']) && digits(end + 1, false) > 0 {
        end += 1 + digits(end + 1, false);
    }
    if is(end, &['e', 'E']) {
        let sign = usize::from(is(end + 1, &['+', '-']));
        let exponent = digits(end + 1 + sign, false);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    if end > whole {
        let value = slice(end).parse().ok().filter(|value: &f64| value.is_finite());
        return (value.map(Token::Double), end);
    }
    if is(end, &['u', 'U']) { (Some(Token::Uint(slice(end))), end + 1) } else { (Some(Token::Int(slice(end))), end) }
}
