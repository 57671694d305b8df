//! Go's rules of reading a URL, step by step.

use super::Url;

/// Where a piece of a URL stands decides which characters it may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Zone,
    Path,
    User,
    Query,
    Fragment,
}

/// Whether Go's `url.ParseRequestURI` reads it.
pub(in crate::core::expression::library) fn is_request_uri(text: &str) -> bool {
    parsed(text, true).is_some()
}

impl Url {
    /// What `url()` reads: it must do for a request, and is then read with its fragment.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !is_request_uri(text) {
            return None;
        }
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        unescape(fragment, Place::Fragment)?;
        let url = parsed(before, false)?;
        Some(Self { text: text.to_owned(), ..url })
    }
}

fn parsed(text: &str, is_request: bool) -> Option<Url> {
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) || (text.is_empty() && is_request) {
        return None;
    }
    let empty = String::new;
    if text == "*" {
        let path = "*".to_owned();
        return Some(Url { text: empty(), scheme: empty(), host: empty(), escaped_path: path, query: empty() });
    }
    let (scheme, rest) = scheme(text)?;
    let scheme = scheme.to_ascii_lowercase();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = query.to_owned();
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            return Some(Url { text: empty(), scheme, host: empty(), escaped_path: empty(), query });
        }
        let first = rest.split('/').next().unwrap_or_default();
        if is_request || first.contains(':') {
            return None;
        }
    }
    let has_authority = !scheme.is_empty() || (!is_request && !rest.starts_with("///"));
    let (host, path) = match rest.strip_prefix("//").filter(|_| has_authority) {
        Some(authority) => {
            let end = authority.find('/').unwrap_or(authority.len());
            let (authority, path) = authority.split_at_checked(end)?;
            (self::authority(&scheme, authority)?, path)
        }
        None => (empty(), rest),
    };
    Some(Url { text: empty(), scheme, host, escaped_path: escaped_path(path)?, query })
}

/// The scheme, and what follows; none when it is malformed.
fn scheme(text: &str) -> Option<(&str, &str)> {
    for (position, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if position > 0 => {}
            ':' => {
                let (scheme, rest) = text.split_once(':')?;
                return (!scheme.is_empty()).then_some((scheme, rest));
            }
            _ => return Some(("", text)),
        }
    }
    Some(("", text))
}

fn authority(scheme: &str, text: &str) -> Option<String> {
    let Some((user, host)) = text.rsplit_once('@') else { return self::host(scheme, text) };
    let host = self::host(scheme, host)?;
    let is_valid = user.chars().all(|c| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c));
    (is_valid && unescape(user, Place::User).is_some()).then_some(host)
}

fn host(scheme: &str, text: &str) -> Option<String> {
    if let Some(open) = text.rfind('[') {
        if open > 0 {
            return None;
        }
        let (name, port) = text.get(1..)?.rsplit_once(']')?;
        if !is_port(port) {
            return None;
        }
        let name = match name.find("%25") {
            Some(zone) => {
                let (name, zone) = name.split_at_checked(zone)?;
                unescape(name, Place::Host)? + &unescape(zone, Place::Zone)?
            }
            None => unescape(name, Place::Host)?,
        };
        let (address, zone) = name.split_once('%').map_or((&*name, None), |(address, zone)| (address, Some(zone)));
        let _: core::net::Ipv6Addr = address.parse().ok()?;
        return (zone != Some("")).then(|| format!("[{name}]{port}"));
    }
    let colon = if matches!(scheme, "http" | "https") { text.find(':') } else { text.rfind(':') };
    if !is_port(colon.and_then(|colon| text.get(colon..)).unwrap_or_default()) {
        return None;
    }
    unescape(text, Place::Host)
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Host name and port of a host.
pub(super) fn host_and_port(text: &str) -> (&str, &str) {
    let colon = text.rfind(':').filter(|colon| text.get(*colon..).is_some_and(is_port));
    let (host, port) = match colon {
        Some(colon) => (text.get(..colon).unwrap_or_default(), text.get(colon + 1..).unwrap_or_default()),
        None => (text, ""),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (bare.unwrap_or(host), port)
}

/// Keys and values; what is malformed is left out.
pub(super) fn query(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(key, Place::Query)?, unescape(value, Place::Query)?))
    })
}

/// Whether a byte may stand for itself.
fn is_plain(byte: u8, place: Place) -> bool {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        return true;
    }
    match place {
        Place::Host | Place::Zone => b"!$&'()*+,;=:[]<>\"".contains(&byte),
        Place::Path => b"$&+,/:;=@".contains(&byte),
        Place::User | Place::Query | Place::Fragment => true,
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn unescape(text: &str, place: Place) -> Option<String> {
    octets(text, place).map(|octets| String::from_utf8_lossy(&octets).into_owned())
}

fn octets(text: &str, place: Place) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let value = hex(bytes.next()?)? << 4 | hex(bytes.next()?)?;
                let is_allowed = match place {
                    Place::Host => value >= 0x80 || value == b'%',
                    Place::Zone => value == b'%' || value == b' ' || is_plain(value, Place::Host),
                    Place::Path | Place::User | Place::Query | Place::Fragment => true,
                };
                if !is_allowed {
                    return None;
                }
                octets.push(value);
            }
            b'+' if place == Place::Query => octets.push(b' '),
            byte if byte < 0x80 && matches!(place, Place::Host | Place::Zone) && !is_plain(byte, place) => {
                return None;
            }
            byte => octets.push(byte),
        }
    }
    Some(octets)
}

/// The path as written when it is well formed, else escaped anew.
fn escaped_path(path: &str) -> Option<String> {
    let octets = octets(path, Place::Path)?;
    let is_valid = path.bytes().all(|byte| is_plain(byte, Place::Path) || b"!$&'()*+,;=:@[]%".contains(&byte));
    if is_valid || path == "*" {
        return Some(path.to_owned());
    }
    let mut out = String::with_capacity(path.len());
    for octet in octets {
        if is_plain(octet, Place::Path) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    Some(out)
}
