//! The wire format of protobuf, as far as messages of the API use it: types, and how keys, numbers and lengths are written.

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const FIXED32: u8 = 5;

pub(super) fn key(out: &mut Vec<u8>, number: u16, wire_type: u8) {
    varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Seconds since 1970, and the nanoseconds after them.
pub(super) fn moment(out: &mut Vec<u8>, number: u16, (seconds, nanos): (i64, i32)) {
    key(out, number, BYTES);
    let start = open(out);
    key(out, 1, VARINT);
    varint(out, seconds as u64);
    key(out, 2, VARINT);
    varint(out, nanos as u64);
    close(out, start);
}

pub(super) fn bytes(out: &mut Vec<u8>, number: u16, bytes: &[u8]) {
    key(out, number, BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Leaves one byte for a length; `close` makes room when it takes more.
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let mut at = start - 1;
    let extra = varint_length(length as u64) - 1;
    if extra > 0 {
        let end = out.len();
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    let mut rest = length;
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
}
