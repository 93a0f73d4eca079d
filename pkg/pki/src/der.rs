//! Just enough DER to write a certificate around a request's user, groups and key: rcgen keeps one value per attribute
//! type, and a subject with several organizations (groups) must come out as it went in.

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OID: u8 = 0x06;
pub(crate) const BOOLEAN: u8 = 0x01;

/// tag, length, content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// `critical` is left out when false, as DER demands of a default.
pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(BOOLEAN, &[0xff]) } else { Vec::new() };
    sequence(&[&tlv(OID, oid), &critical, &tlv(OCTET_STRING, value)])
}

/// UTCTime until 2049, GeneralizedTime from then on (RFC 5280 4.1.2.5).
pub(crate) fn time(unix: i64) -> Vec<u8> {
    let time = jiff::Timestamp::from_second(unix)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_zoned(jiff::tz::TimeZone::UTC);
    if time.year() < 2050 {
        tlv(0x17, time.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tlv(0x18, time.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

/// A BIT STRING of named bits: bit 0 is the highest of the first byte.
pub(crate) fn named_bits(bits: u16) -> Vec<u8> {
    let reversed = bits.reverse_bits();
    let mut bytes = reversed.to_be_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    let unused = bytes.last().map_or(0, |byte| byte.trailing_zeros() as u8);
    bytes.insert(0, unused);
    tlv(BIT_STRING, &bytes)
}
