//! Frames as bytes: 8 bytes that say kind, flags and length, then the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub const HEAD: usize = 8;
/// Control frames are small; a longer one is no SPDY, or an attack.
const CONTROL_LIMIT: usize = 1 << 20;
const VERSION: u16 = 3;
pub const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream is reset.
pub const PROTOCOL_ERROR: u32 = 1;
pub const CANCEL: u32 = 5;

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("version {0} of the protocol, not 3")]
    Version(u16),
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    #[error("a frame of type {0} is cut short")]
    Short(u16),
    #[error("headers that are not compressed as they should be")]
    Compression,
    #[error("headers of more than {0} bytes")]
    HeadersTooLong(usize),
    #[error("headers whose lengths are wrong")]
    Headers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data { stream: u32 },
    Control { type_: u16 },
}

/// The first 8 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub flags: u8,
    pub length: usize,
}

impl Head {
    pub fn parse(mut bytes: &[u8]) -> Result<Self, Error> {
        let word = bytes.get_u32();
        let rest = bytes.get_u32();
        let (flags, length) = ((rest >> 24) as u8, (rest & 0x00ff_ffff) as usize);
        if word >> 31 == 0 {
            let kind = Kind::Data { stream: word };
            return Ok(Self { kind, flags, length });
        }
        let version = ((word >> 16) & 0x7fff) as u16;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        if length > CONTROL_LIMIT {
            return Err(Error::TooLong(length));
        }
        let kind = Kind::Control {
            type_: (word & 0xffff) as u16,
        };
        Ok(Self { kind, flags, length })
    }
}

/// A control frame; its headers still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        block: Bytes,
    },
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// SETTINGS, WINDOW_UPDATE and what a later version may add: nothing to us.
    Other,
}

impl Control {
    pub fn parse(type_: u16, flags: u8, mut payload: Bytes) -> Result<Self, Error> {
        let needed = match type_ {
            SYN_STREAM => 10,
            RST_STREAM | WINDOW_UPDATE | GOAWAY => 8,
            SYN_REPLY | HEADERS | PING | SETTINGS => 4,
            _ => 0,
        };
        if payload.len() < needed {
            return Err(Error::Short(type_));
        }
        let fin = flags & FIN != 0;
        let id = |payload: &mut Bytes| payload.get_u32() & 0x7fff_ffff;
        Ok(match type_ {
            SYN_STREAM => {
                let stream = id(&mut payload);
                // The stream that it belongs to, priority, slot: of no use here.
                payload.advance(6);
                let block = payload;
                Self::SynStream { stream, fin, block }
            }
            SYN_REPLY => Self::SynReply {
                stream: id(&mut payload),
                block: payload,
            },
            HEADERS => Self::Headers {
                stream: id(&mut payload),
                fin,
                block: payload,
            },
            RST_STREAM => Self::RstStream {
                stream: id(&mut payload),
                status: payload.get_u32(),
            },
            PING => Self::Ping { id: payload.get_u32() },
            GOAWAY => Self::GoAway,
            _ => Self::Other,
        })
    }
}

fn control(type_: u16, flags: u8, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEAD + length);
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(type_);
    frame.put_u32(u32::from(flags) << 24 | length as u32);
    frame
}

pub fn syn_reply(stream: u32, block: &[u8]) -> Bytes {
    let mut frame = control(SYN_REPLY, 0, 4 + block.len());
    frame.put_u32(stream);
    frame.put_slice(block);
    frame.freeze()
}

pub fn rst_stream(stream: u32, status: u32) -> Bytes {
    let mut frame = control(RST_STREAM, 0, 8);
    frame.put_u32(stream);
    frame.put_u32(status);
    frame.freeze()
}

pub fn ping(id: u32) -> Bytes {
    let mut frame = control(PING, 0, 4);
    frame.put_u32(id);
    frame.freeze()
}

/// At most 16 MiB of data.
pub fn data(stream: u32, fin: bool, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + data.len());
    frame.put_u32(stream);
    let flags = if fin { u32::from(FIN) } else { 0 };
    frame.put_u32(flags << 24 | data.len() as u32);
    frame.put_slice(data);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn heads() {
        for (bytes, expected) in [
            (
                [0x80, 3, 0, 1, 1, 0, 0, 10],
                Ok(Head {
                    kind: Kind::Control { type_: 1 },
                    flags: 1,
                    length: 10,
                }),
            ),
            (
                [0, 0, 0, 5, 1, 0, 1, 2],
                Ok(Head {
                    kind: Kind::Data { stream: 5 },
                    flags: 1,
                    length: 258,
                }),
            ),
            ([0x80, 2, 0, 1, 0, 0, 0, 0], Err(Error::Version(2))),
            ([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], Err(Error::TooLong(0x00ff_ffff))),
        ] {
            assert_eq!(Head::parse(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn controls() {
        let payload = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        for (type_, flags, bytes, expected) in [
            (
                SYN_STREAM,
                FIN,
                &[0x80, 0, 0, 7, 0, 0, 0, 0, 0, 0, b'x'][..],
                Ok(Control::SynStream {
                    stream: 7,
                    fin: true,
                    block: payload(b"x"),
                }),
            ),
            (SYN_STREAM, 0, &[0, 0, 0, 1], Err(Error::Short(SYN_STREAM))),
            (
                RST_STREAM,
                0,
                &[0, 0, 0, 1, 0, 0, 0, 5],
                Ok(Control::RstStream {
                    stream: 1,
                    status: CANCEL,
                }),
            ),
            (PING, 0, &[0, 0, 0, 9], Ok(Control::Ping { id: 9 })),
            (GOAWAY, 0, &[0; 8], Ok(Control::GoAway)),
            (WINDOW_UPDATE, 0, &[0; 8], Ok(Control::Other)),
            (SETTINGS, 0, &[0; 4], Ok(Control::Other)),
        ] {
            assert_eq!(Control::parse(type_, flags, payload(bytes)), expected);
        }
    }

    #[test]
    fn written_frames_are_read_back() {
        for (frame, expected) in [
            (
                syn_reply(3, b"zz"),
                Control::SynReply {
                    stream: 3,
                    block: Bytes::from("zz"),
                },
            ),
            (
                rst_stream(3, PROTOCOL_ERROR),
                Control::RstStream {
                    stream: 3,
                    status: PROTOCOL_ERROR,
                },
            ),
            (ping(2), Control::Ping { id: 2 }),
        ] {
            let head = Head::parse(&frame[..HEAD]).unwrap();
            assert_eq!(head.length, frame.len() - HEAD);
            let Kind::Control { type_ } = head.kind else {
                panic!("{head:?}");
            };
            assert_eq!(
                Control::parse(type_, head.flags, frame.slice(HEAD..)).unwrap(),
                expected
            );
        }
        assert_eq!(data(1, true, b"ab")[..], [0, 0, 0, 1, 1, 0, 0, 2, b'a', b'b']);
    }
}
