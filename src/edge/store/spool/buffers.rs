//! Memory that chunks are made, sealed and shipped in, used again and again: memory that is fresh from the operating
//! system costs more than what is done in it. Only a few buffers are kept, however many there were. Main type: [`Buffers`].

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::core::recording::chunk::{CLOSE_AT, MAX_OBJECT};

/// Buffers kept while nobody uses them.
const MOST: usize = 6;

/// The buffers nobody uses. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that comes back when nobody reads it any more.
struct Lent {
    buffers: Buffers,
    bytes: Vec<u8>,
}

impl Buffers {
    /// An empty buffer; one that was used before when there is one.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps a buffer for later, when it is one for a chunk and there are few.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST && (CLOSE_AT..=MAX_OBJECT.next_power_of_two()).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    }

    /// The bytes of a buffer, which is given back with the last of them.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffers: self.clone(), bytes })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_the_last_reader_has_gone() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        first.extend_from_slice(&vec![7; CLOSE_AT]);
        let at = first.as_ptr();
        let lent = buffers.lend(first);
        let part = lent.slice(1..3);
        drop(lent);
        assert_eq!(buffers.take().capacity(), 0, "somebody still reads it");
        assert_eq!(*part, [7, 7]);
        drop(part);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn only_a_few_of_the_size_of_chunks_are_kept() {
        let buffers = Buffers::default();
        for capacity in [0, 100, CLOSE_AT - 1, 64 * CLOSE_AT] {
            buffers.give(Vec::with_capacity(capacity));
        }
        assert_eq!(buffers.take().capacity(), 0);
        (0..2 * MOST).for_each(|_| buffers.give(Vec::with_capacity(CLOSE_AT)));
        assert_eq!((0..2 * MOST).filter(|_| buffers.take().capacity() > 0).count(), MOST);
    }
}
