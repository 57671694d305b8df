//! Which files are in a `tar` stream that went by, as with `kubectl cp`: names, sizes and modes, never contents.
//!
//! Reads POSIX (pax), GNU and old archives as tar itself does, block by block, in bounded memory. Recognised is an
//! archive by the checksum of its first header alone; compressed ones and parts of one are not. Names are bytes that a
//! hostile container chose: [`Entry::path_text`] and [`Entry::link_text`] are what may be shown.
//! Sources: POSIX pax "ustar Interchange Format"; GNU tar manual "Basic Tar Format".

use std::fmt;

const BLOCK: usize = 512;
/// Longest header extension that is read; Go's reader has the same bound.
const LONGEST_EXTENSION: u64 = 1024 * 1024;
/// Bytes of a name that are kept.
const LONGEST_NAME: usize = 4096;

/// Reads one stream.
#[derive(Debug, Default)]
pub struct Lister {
    standing: Standing,
    state: State,
    block: Vec<u8>,
    next: Extension,
    empty_blocks: u8,
    found: u64,
}

/// What is known about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing or too little came.
    #[default]
    Empty,
    /// It does not begin like an archive.
    Other,
    /// An archive, and no end yet.
    Reading,
    /// An archive with its end.
    Ended,
    /// It began as an archive and then was none: what came after is not listed.
    Broken(&'static str),
}

/// One file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its path, cut to 4096 bytes.
    pub path: Vec<u8>,
    /// Where a link leads, cut in the same way; empty for everything else.
    pub link: Vec<u8>,
    /// Bytes of its content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// Another name of a file before it.
    HardLink,
    /// A device or a pipe.
    Special,
}

#[derive(Debug, Default)]
enum State {
    /// Collecting a header block.
    #[default]
    Header,
    /// Passing over this many bytes.
    Skip(u64),
    /// Collecting an extension, then passing over its padding.
    Extension { kind: u8, left: u64, padding: u64 },
}

/// What extension headers said about the next file.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Lister {
    /// Takes bytes of the stream and appends the files whose headers are complete.
    pub fn push(&mut self, mut bytes: &[u8], found: &mut Vec<Entry>) {
        while !bytes.is_empty() && matches!(self.standing, Standing::Empty | Standing::Reading) {
            bytes = match self.state {
                State::Skip(left) => self.skip(left, bytes),
                State::Header => self.header(bytes, found),
                State::Extension { kind, left, padding } => self.extension(kind, left, padding, bytes),
            };
        }
    }

    /// What is known about the stream so far.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Files so far.
    pub fn found(&self) -> u64 {
        self.found
    }

    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - taken as u64;
        self.state = if left == 0 { State::Header } else { State::Skip(left) };
        bytes.get(taken..).unwrap_or_default()
    }

    /// Moves bytes into the block until it has so many.
    fn fill<'a>(&mut self, length: usize, bytes: &'a [u8]) -> &'a [u8] {
        let taken = length.saturating_sub(self.block.len()).min(bytes.len());
        let (now, later) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
        self.block.extend_from_slice(now);
        later
    }

    fn header<'a>(&mut self, bytes: &'a [u8], found: &mut Vec<Entry>) -> &'a [u8] {
        let rest = self.fill(BLOCK, bytes);
        if self.block.len() == BLOCK {
            let block = std::mem::take(&mut self.block);
            if let Err(standing) = self.read(&block, found) {
                self.standing = standing;
            }
        }
        rest
    }

    fn extension<'a>(&mut self, kind: u8, left: u64, padding: u64, bytes: &'a [u8]) -> &'a [u8] {
        let rest = self.fill(usize::try_from(left).unwrap_or(usize::MAX), bytes);
        if self.block.len() as u64 == left {
            let body = std::mem::take(&mut self.block);
            self.state = if padding == 0 { State::Header } else { State::Skip(padding) };
            match kind {
                b'L' => self.next.path = Some(until_nul(&body).to_vec()),
                b'K' => self.next.link = Some(until_nul(&body).to_vec()),
                b'x' if self.next.read_pax(&body).is_none() => {
                    self.standing = Standing::Broken("an extended header cannot be read");
                }
                _ => {}
            }
        }
        rest
    }

    fn read(&mut self, block: &[u8], found: &mut Vec<Entry>) -> Result<(), Standing> {
        let fresh = self.standing == Standing::Empty;
        if block.iter().all(|byte| *byte == 0) {
            self.empty_blocks += 1;
            return match (fresh, self.empty_blocks) {
                (true, _) => Err(Standing::Other),
                (false, 1) => Ok(()),
                (false, _) => Err(Standing::Ended),
            };
        }
        if checksum(block) != number(field(block, 148, 8)) {
            return Err(if fresh { Standing::Other } else { Standing::Broken("a header has a wrong checksum") });
        }
        self.standing = Standing::Reading;
        self.empty_blocks = 0;
        let size = number(field(block, 124, 12)).ok_or(Standing::Broken("a size is no number"))?;
        let kind = block.get(156).copied().unwrap_or_default();
        if matches!(kind, b'L' | b'K' | b'x' | b'g') {
            if size > LONGEST_EXTENSION {
                return Err(Standing::Broken("an extended header is too long"));
            }
            self.state = State::Extension { kind, left: size, padding: padding(size) };
            return if size == 0 { Err(Standing::Broken("an extended header is empty")) } else { Ok(()) };
        }
        if kind == b'S' && block.get(482).is_some_and(|more| *more != 0) {
            return Err(Standing::Broken("a sparse file in the old GNU form"));
        }
        self.entry(block, kind, size, found);
        Ok(())
    }

    fn entry(&mut self, block: &[u8], kind: u8, size: u64, found: &mut Vec<Entry>) {
        let next = std::mem::take(&mut self.next);
        let path = cut(next.path.unwrap_or_else(|| path(block)));
        let link = cut(next.link.unwrap_or_else(|| until_nul(field(block, 157, 100)).to_vec()));
        let kind = Kind::of(kind, &path);
        let size = if kind == Kind::File { next.size.unwrap_or(size) } else { 0 };
        let left = size.saturating_add(padding(size));
        self.state = if left == 0 { State::Header } else { State::Skip(left) };
        self.found += 1;
        let link = if matches!(kind, Kind::Symlink | Kind::HardLink) { link } else { Vec::new() };
        let mode = number(field(block, 100, 8)).map_or(0, |mode| u32::try_from(mode & 0o7777).unwrap_or_default());
        found.push(Entry { kind, path, link, size, mode });
    }
}

impl Extension {
    /// Reads pax records, each `<length> <key>=<value>\n`; `None` when one is not in that form.
    fn read_pax(&mut self, mut body: &[u8]) -> Option<()> {
        while !body.is_empty() {
            let blank = body.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(body.get(..blank)?).ok()?.parse().ok()?;
            let record = body.get(blank + 1..length)?.strip_suffix(b"\n")?;
            body = body.get(length..)?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let value = record.get(equals + 1..)?.to_vec();
            match record.get(..equals)? {
                b"path" | b"GNU.sparse.name" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => self.size = Some(std::str::from_utf8(&value).ok()?.parse().ok()?),
                _ => {}
            }
        }
        Some(())
    }
}

impl Kind {
    fn of(number: u8, path: &[u8]) -> Self {
        match number {
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' | b'6' => Kind::Special,
            b'5' => Kind::Folder,
            // Before POSIX a folder was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => Kind::Folder,
            _ => Kind::File,
        }
    }

    /// The letter that `ls -l` shows.
    pub fn letter(self) -> char {
        match self {
            Kind::File => '-',
            Kind::Folder => 'd',
            Kind::Symlink => 'l',
            Kind::HardLink => 'h',
            Kind::Special => 's',
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Folder => "folder",
            Kind::Symlink => "symlink",
            Kind::HardLink => "hardLink",
            Kind::Special => "special",
        }
    }
}

impl Entry {
    /// The path, safe to show.
    pub fn path_text(&self) -> String {
        safe(&self.path)
    }

    /// Where a link leads, safe to show.
    pub fn link_text(&self) -> String {
        safe(&self.link)
    }

    /// The permissions as `ls -l` shows them, such as `-rwxr-x---`.
    pub fn mode_text(&self) -> String {
        let bits = (0..9).rev().map(|bit| match (self.mode >> bit & 1, bit % 3) {
            (0, _) => '-',
            (_, 2) => 'r',
            (_, 1) => 'w',
            _ => 'x',
        });
        std::iter::once(self.kind.letter()).chain(bits).collect()
    }

    /// True when the path, or the link, leads out of the folder it is unpacked in.
    pub fn leads_out(&self) -> bool {
        let out =
            |path: &[u8]| path.first() == Some(&b'/') || path.split(|byte| *byte == b'/').any(|part| part == b"..");
        out(&self.path) || out(&self.link)
    }
}

impl fmt::Display for Entry {
    /// One line as `tar -tv` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:>12} {}", self.mode_text(), self.size, self.path_text())?;
        if self.link.is_empty() { Ok(()) } else { write!(f, " -> {}", self.link_text()) }
    }
}

/// Bytes as text that no terminal obeys and that looks like what it is: controls, marks that turn the direction of
/// writing, and bytes that are no UTF-8 are escaped.
fn safe(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let turns = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
            match letter {
                '\\' => out.push_str("\\\\"),
                letter if letter.is_control() || turns => out.extend(letter.escape_default()),
                letter => out.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

fn path(block: &[u8]) -> Vec<u8> {
    let name = until_nul(field(block, 0, 100));
    let prefix = until_nul(field(block, 345, 155));
    if field(block, 257, 6) != b"ustar\0" || prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn cut(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(LONGEST_NAME);
    name
}

fn field(block: &[u8], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of all bytes of a header, with blanks in place of the checksum itself.
fn checksum(block: &[u8]) -> Option<u64> {
    let of = |(at, byte): (usize, &u8)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte });
    Some(block.iter().enumerate().map(of).sum())
}

/// A number in octal digits, or in GNU's binary form when the first bit is set; `None` when it is neither.
fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        let bytes = field.get(field.len().checked_sub(8)?..)?;
        let more =
            field.get(..field.len() - 8)?.iter().enumerate().any(|(at, byte)| *byte != if at == 0 { 0x80 } else { 0 });
        // A negative or too large number fits no file; one of eight bytes has its mark in the top bit.
        let value = bytes.iter().enumerate().fold(0, |sum: u64, (at, byte)| {
            let byte = if field.len() == 8 && at == 0 { byte & 0x7f } else { *byte };
            sum << 8 | u64::from(byte)
        });
        return (!more).then_some(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let text = field.get(field.iter().position(|byte| !blank(byte)).unwrap_or(field.len())..)?;
    let digits = text.get(..text.iter().position(blank).unwrap_or(text.len()))?;
    digits.iter().try_fold(0u64, |sum, digit| {
        let value = digit.checked_sub(b'0').filter(|value| *value < 8)?;
        sum.checked_mul(8)?.checked_add(u64::from(value))
    })
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

#[cfg(test)]
mod tests;
