//! Header blocks: one zlib stream per direction for the whole connection, cut into blocks that must be read in order.
//!
//! The reader bounds what a block inflates to and wants it to end exactly with its frame. The writer does not compress:
//! it writes stored blocks, which every inflater reads, which cost no memory, and which make the bytes of a frame depend
//! on nothing but the frame. Main types: [`Headers`], [`Inflater`].

use super::dictionary::{DICTIONARY, ID};
use super::{Error, MAX_BLOCK, MAX_HEADERS};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

/// The first two bytes of a zlib stream with a preset dictionary: 32 KiB window, fastest.
const ZLIB: [u8; 2] = [0x78, 0x20];
/// The longest stored block of deflate.
const STORED: usize = 0xffff;

/// The headers of a frame, in order: lower-case names, values as they are. Several values of a name are one, joined by
/// NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Bytes, Bytes)>);

/// Reads the header blocks of one direction.
#[derive(Debug, Default)]
pub(super) struct Inflater {
    /// Made with the first block: most of its memory is a window.
    zlib: Option<Decompress>,
}

impl Headers {
    /// Headers of these names and values. Names are lower case.
    pub fn new<N: Into<Bytes>, V: Into<Bytes>>(pairs: impl IntoIterator<Item = (N, V)>) -> Headers {
        Headers(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value of a header that has exactly one, as text.
    pub fn only(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name.as_bytes())?;
        std::str::from_utf8(value).ok().filter(|value| !value.contains('\0'))
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Whether there is such a header, whatever its values.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name.as_bytes())
    }

    /// Reads an inflated block: a count, then so many names and values after their lengths, and nothing more.
    pub(super) fn parse(mut block: Bytes) -> Result<Headers, Error> {
        let count = usize::try_from(number(&mut block)?).map_err(|_| Error::Headers)?;
        if count > MAX_HEADERS {
            return Err(Error::Headers);
        }
        let mut headers: Vec<(Bytes, Bytes)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, value) = (string(&mut block)?, string(&mut block)?);
            let fits = |byte: &u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
            let again = headers.iter().any(|(earlier, _)| *earlier == name);
            if name.is_empty() || !name.iter().all(fits) || again {
                return Err(Error::Headers);
            }
            headers.push((name, value));
        }
        if block.is_empty() { Ok(Headers(headers)) } else { Err(Error::Headers) }
    }

    /// Writes the block that [`Headers::parse`] reads, as a piece of a direction's zlib stream: its head before the first
    /// block, then stored, and with the empty block after it that makes an inflater give out what it has.
    pub(super) fn write(&self, first: bool, out: &mut BytesMut) {
        let mut block = BytesMut::new();
        block.put_u32(length(self.0.len()));
        for (name, value) in &self.0 {
            for bytes in [name, value] {
                block.put_u32(length(bytes.len()));
                block.extend_from_slice(bytes);
            }
        }
        if first {
            out.extend_from_slice(&ZLIB);
            out.extend_from_slice(&ID);
        }
        for piece in block.chunks(STORED).chain([&[][..]]) {
            let size = u16::try_from(piece.len()).unwrap_or_default();
            out.put_u8(0);
            out.put_u16_le(size);
            out.put_u16_le(!size);
            out.extend_from_slice(piece);
        }
    }
}

impl Inflater {
    /// Inflates and reads the block of one frame. After an error the stream cannot be read on.
    pub(super) fn read(&mut self, compressed: &[u8]) -> Result<Headers, Error> {
        let zlib = self.zlib.get_or_insert_with(|| Decompress::new(true));
        let mut block = Vec::with_capacity(256);
        let mut rest = compressed;
        loop {
            let (taken, given) = (zlib.total_in(), block.len());
            let result = zlib.decompress_vec(rest, &mut block, FlushDecompress::Sync);
            let taken = usize::try_from(zlib.total_in() - taken).map_err(|_| Error::Headers)?;
            rest = rest.get(taken..).ok_or(Error::Headers)?;
            match result {
                Ok(Status::StreamEnd) => return Err(Error::Headers),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary() == Some(u32::from_be_bytes(ID)) => {
                    zlib.set_dictionary(DICTIONARY).map_err(|_| Error::Headers)?;
                    continue;
                }
                Err(_) => return Err(Error::Headers),
            }
            if block.len() > MAX_BLOCK {
                return Err(Error::Headers);
            }
            let full = block.len() == block.capacity();
            if full {
                // One byte more than the limit tells a block that is too large.
                block.reserve_exact(block.len().min(MAX_BLOCK + 1 - block.len()).max(1));
            } else if rest.is_empty() {
                return Headers::parse(block.into());
            } else if taken == 0 && block.len() == given {
                return Err(Error::Headers);
            }
        }
    }
}

fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn number(block: &mut Bytes) -> Result<u32, Error> {
    let bytes = *block.first_chunk::<4>().ok_or(Error::Headers)?;
    block.advance(4);
    Ok(u32::from_be_bytes(bytes))
}

fn string(block: &mut Bytes) -> Result<Bytes, Error> {
    let length = usize::try_from(number(block)?).map_err(|_| Error::Headers)?;
    if length > block.len() {
        return Err(Error::Headers);
    }
    Ok(block.split_to(length))
}
