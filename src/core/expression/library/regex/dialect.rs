//! From Go's regular expressions to those of the `regex` crate.
//!
//! In Go `\d \s \w \b` mean ASCII alone, brackets inside brackets mean themselves, and a repetition counts to 1000. What
//! the crate reads and Go does not is refused, so that a pattern means the same here and in Kubernetes.

use std::iter::Peekable;
use std::str::Chars;

/// Most repetitions, as in RE2.
const MAX_REPEAT: usize = 1000;

/// Names of ASCII classes.
const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// How far is looked ahead, so that translating takes time linear in the pattern.
const AHEAD: usize = 32;

/// The same pattern for the crate, and how often its parts are repeated, all counts multiplied.
///
/// # Errors
/// It is not in Go's dialect.
pub(super) fn translate(pattern: &str) -> Result<(String, usize), String> {
    let mut repeats = 1usize;
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut was_repeated = false;
    while let Some(c) = chars.next() {
        let is_repetition = match c {
            '*' | '+' | '?' => true,
            '{' => counted(&chars).is_some(),
            _ => false,
        };
        if is_repetition {
            if was_repeated {
                return Err("a repetition is repeated".to_owned());
            }
            match counted(&chars).filter(|_| c == '{') {
                Some(count) => {
                    repeats = repeats.saturating_mul(repetition(&count, &mut chars, &mut out)?);
                }
                None => out.push(c),
            }
            if chars.next_if_eq(&'?').is_some() {
                out.push('?');
            }
        }
        was_repeated = is_repetition;
        match c {
            _ if is_repetition => {}
            '\\' => escape(&mut chars, &mut out, false)?,
            '[' => class(&mut chars, &mut out)?,
            '(' => group(&mut chars, &mut out)?,
            '{' => out.push_str("\\{"),
            '}' | ']' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    Ok((out, repeats))
}

/// What stands in `{2,3}`; none when the bracket means itself.
fn counted(chars: &Peekable<Chars<'_>>) -> Option<String> {
    let rest: String = chars.clone().take_while(|c| *c != '}').take(AHEAD).collect();
    let is_closed = chars.clone().nth(rest.chars().count()) == Some('}');
    let (low, high) = rest.split_once(',').unwrap_or((&rest, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_closed && is_number(low) && (high.is_empty() || is_number(high))).then_some(rest)
}

/// The highest count.
fn repetition(count: &str, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<usize, String> {
    let counts = count.split(',').filter(|count| !count.is_empty()).map(|count| count.parse().unwrap_or(usize::MAX));
    let highest = counts.max().unwrap_or(1);
    if highest > MAX_REPEAT {
        return Err(format!("repeats more than {MAX_REPEAT} times"));
    }
    out.push('{');
    out.push_str(count);
    out.push('}');
    chars.nth(count.chars().count());
    Ok(highest.max(1))
}

/// Groups: `(?flags)`, `(?flags:`, `(?P<name>` and `(?<name>`.
fn group(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('(');
    if chars.peek() != Some(&'?') {
        return Ok(());
    }
    let head: String = chars.clone().skip(1).take_while(|c| !matches!(c, ':' | ')' | '>')).take(AHEAD).collect();
    let is_name = head.starts_with("P<") || head.starts_with('<');
    if !is_name && !head.chars().all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
        return Err(format!("(?{head} is no group of RE2"));
    }
    if head.starts_with("<=") || head.starts_with("<!") {
        return Err("RE2 cannot look behind".to_owned());
    }
    out.push('?');
    chars.next();
    Ok(())
}

fn escape(chars: &mut Peekable<Chars<'_>>, out: &mut String, in_class: bool) -> Result<(), String> {
    let Some(c) = chars.next() else { return Err("ends with a lone backslash".to_owned()) };
    let (open, close) = if in_class { ("", "") } else { ("[", "]") };
    match c {
        'd' => out.push_str(&format!("{open}0-9{close}")),
        's' => out.push_str(&format!("{open}\\t\\n\\f\\r {close}")),
        'w' => out.push_str(&format!("{open}0-9A-Za-z_{close}")),
        'D' => out.push_str("[^0-9]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        'Q' if !in_class => quoted(chars, out),
        'A' | 'z' if !in_class => {
            out.push('\\');
            out.push(c);
        }
        '0'..='7' => octal(c, chars, out)?,
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => {
            out.push('\\');
            out.push(c);
        }
        'x' | 'p' | 'P' => {
            out.push('\\');
            out.push(c);
            if chars.peek() == Some(&'{') {
                out.extend(chars.by_ref().take_while(|c| *c != '}'));
                out.push('}');
            }
        }
        c if c.is_ascii_punctuation() => {
            out.push('\\');
            out.push(c);
        }
        c => return Err(format!("\\{c} is no escape of RE2")),
    }
    Ok(())
}

/// `\Q…\E`: everything in between means itself.
fn quoted(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek() == Some(&'E') {
            chars.next();
            return;
        }
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
}

/// `\123`, or `\0`; a single digit other than 0 would refer back.
fn octal(first: char, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let is_octal = |c: Option<&char>| c.is_some_and(|c| ('0'..='7').contains(c));
    if first != '0' && !is_octal(chars.peek()) {
        return Err(format!("\\{first}: RE2 cannot refer back"));
    }
    let mut value = first.to_digit(8).unwrap_or(0);
    for _ in 0..2 {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
        value = value * 8 + digit;
        chars.next();
    }
    out.push_str(&format!("\\x{{{value:x}}}"));
    Ok(())
}

/// `[…]`, whose inside means itself but for ranges, escapes and `[:name:]`.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if chars.peek() == Some(&'^') {
        chars.next();
        out.push('^');
    }
    let mut is_first = true;
    while let Some(c) = chars.next() {
        match c {
            ']' if !is_first => {
                out.push(']');
                return Ok(());
            }
            '\\' => escape(chars, out, true)?,
            '[' if chars.peek() == Some(&':') => {
                let name: String = chars.clone().skip(1).take_while(|c| *c != ']').take(AHEAD).collect();
                if let Some(known) = name.strip_suffix(':') {
                    if !CLASSES.contains(&known.strip_prefix('^').unwrap_or(known)) {
                        return Err(format!("[:{name}] is no class of RE2"));
                    }
                    out.push_str("[:");
                    out.push_str(&name);
                    out.push(']');
                    chars.nth(name.chars().count() + 1);
                } else {
                    out.push_str("\\[");
                }
            }
            '[' | ']' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            // Two of them would subtract in the crate.
            '-' if is_first || chars.peek() == Some(&']') => out.push_str("\\-"),
            c => out.push(c),
        }
        is_first = false;
    }
    Err("a bracket is not closed".to_owned())
}
