//! Escapes of string and bytes literals, as cel-go reads them.

/// What stands between the quotes, as the octets it means.
pub(super) fn unescape(content: &str, is_raw: bool, is_bytes: bool) -> Result<Vec<u8>, String> {
    let normal = content.replace("\r\n", "\n").replace('\r', "\n");
    if is_raw || !normal.contains('\\') {
        return Ok(normal.into_bytes());
    }
    let mut octets = Vec::with_capacity(normal.len());
    let mut chars = normal.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            one(&mut chars, is_bytes, &mut octets)?;
        } else {
            push(c, &mut octets);
        }
    }
    Ok(octets)
}

fn push(c: char, octets: &mut Vec<u8>) {
    octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn one(chars: &mut std::str::Chars<'_>, is_bytes: bool, octets: &mut Vec<u8>) -> Result<(), String> {
    let Some(c) = chars.next() else { return Err("a lone backslash at the end".to_owned()) };
    let simple = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => u8::try_from(c).unwrap_or(b'?'),
        'x' | 'X' => return digits(chars, 2, 16, 0, is_bytes, octets),
        'u' if !is_bytes => return digits(chars, 4, 16, 0, is_bytes, octets),
        'U' if !is_bytes => return digits(chars, 8, 16, 0, is_bytes, octets),
        '0'..='3' => return digits(chars, 2, 8, c.to_digit(8).unwrap_or(0), is_bytes, octets),
        other => return Err(format!("\\{other} is no escape")),
    };
    octets.push(simple);
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one table of escapes, each a row of numbers")]
fn digits(
    chars: &mut std::str::Chars<'_>,
    count: usize,
    radix: u32,
    start: u32,
    is_bytes: bool,
    octets: &mut Vec<u8>,
) -> Result<(), String> {
    let mut value = start;
    for _ in 0..count {
        let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or("an escape with too few digits")?;
        value = value.wrapping_mul(radix) | digit;
    }
    if is_bytes {
        octets.push(u8::try_from(value).map_err(|_| "an escape beyond one byte")?);
        return Ok(());
    }
    push(char::from_u32(value).ok_or("an escape that is no character")?, octets);
    Ok(())
}
