//! A value's text and the hole in it.

use bytes::Bytes;

/// Capacity in bytes beyond its length with which a value's buffer is best handed over: the revision's digits, and an
/// engine's header of the record, are then written into the same buffer.
pub const SPARE: usize = 24;

/// Puts the revision into the hole, in the buffer itself where that has room.
pub(crate) fn splice(mut value: Vec<u8>, hole: usize, revision: u64) -> Bytes {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(revision).as_bytes();
    let length = value.len();
    let hole = hole.min(length);
    if value.capacity() < length + digits.len() {
        value.reserve_exact(digits.len());
    }
    value.extend_from_slice(digits);
    value.copy_within(hole..length, hole + digits.len());
    value[hole..hole + digits.len()].copy_from_slice(digits);
    // What a generous buffer leaves over would be held as long as the object.
    if value.capacity() > value.len() + 2 * SPARE {
        value.shrink_to_fit();
    }
    Bytes::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_goes_into_the_hole_whatever_room_there_is() {
        for spare in [0, 3, SPARE, 4096] {
            for (hole, expected) in [(0, "1234ab"), (1, "a1234b"), (2, "ab1234")] {
                let mut value = Vec::with_capacity(2 + spare);
                value.extend_from_slice(b"ab");
                assert_eq!(splice(value, hole, 1234), expected.as_bytes());
            }
        }
        assert_eq!(splice(Vec::new(), 0, u64::MAX).len(), 20);
    }
}
