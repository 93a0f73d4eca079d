//! Element updates of nftables sets and maps, straight over netlink: a transaction as `nft` would make it of `add element`
//! and `delete element`, without starting it, and on a socket that stays open (closing one waits until the kernel has
//! freed what was deleted: some 10 ms).

use rtnetlink::sys::{Socket as Netlink, SocketAddr};

use crate::{
    error::{Error, Result},
    nfnl::{ACK, ERROR, NESTED, NETLINK_NETFILTER, REQUEST, attribute, message, messages, refusal},
};

/// More than this is better read by `nft`: it sizes its socket for it.
pub const MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub set: String,
    /// The fields of the key, each padded to four bytes.
    pub key: Vec<u8>,
    /// None: the key is deleted.
    pub add: Option<Data>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Of a set, not a map.
    None,
    Value(Vec<u8>),
    Drop,
    Goto(String),
}

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Subsystem 10, nftables.
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM << 8 | 14;
const CREATE: u16 = 0x400;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const CODE_DROP: i32 = 0;
const CODE_GOTO: i32 = -4;

pub struct Socket(Netlink);

impl Socket {
    pub fn open() -> Result<Self> {
        let failed = |source| Error::io("open a socket to nftables", source);
        let mut socket = Netlink::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Self(socket))
    }

    /// Does all of it, in this order, or nothing. Takes the kernel well under a millisecond, on this thread.
    pub fn transact(&self, table: &str, elements: &[Element]) -> Result<()> {
        let failed = |source| Error::io(format!("change elements of table {table}"), source);
        self.0.send(&batch(table, elements), 0).map_err(failed)?;
        // The kernel has done it by now, and its answers wait: the acknowledgement, or what went wrong.
        let mut answered = false;
        loop {
            match self.0.recv_from_full() {
                Ok((bytes, _)) => {
                    for (_, body) in messages(&bytes).filter(|(kind, _)| *kind == ERROR) {
                        answered = true;
                        let refusal = refusal(body);
                        if refusal.raw_os_error() != Some(0) {
                            // Of a later message, perhaps; the rest is read before the next transaction.
                            while self.0.recv_from_full().is_ok() {}
                            return Err(failed(refusal));
                        }
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && answered => return Ok(()),
                Err(source) => return Err(failed(source)),
            }
        }
    }
}

fn batch(table: &str, elements: &[Element]) -> Vec<u8> {
    let mut bytes = edge(BATCH_BEGIN);
    for (index, element) in elements.iter().enumerate() {
        let last = if index + 1 == elements.len() { ACK } else { 0 };
        let (kind, flags) = match element.add {
            Some(_) => (NEW_ELEMENTS, REQUEST | CREATE | last),
            None => (DELETE_ELEMENTS, REQUEST | last),
        };
        let attributes = [
            attribute(LIST_TABLE, &text(table)),
            attribute(LIST_SET, &text(&element.set)),
            attribute(LIST_ELEMENTS | NESTED, &attribute(ELEMENT | NESTED, &body(element))),
        ];
        bytes.extend(message(kind, flags, &attributes.concat()));
    }
    bytes.extend(edge(BATCH_END));
    bytes
}

/// Begins or ends a batch: the family is none, the resource is the subsystem.
fn edge(kind: u16) -> Vec<u8> {
    let mut bytes = message(kind, REQUEST, &[]);
    let at = bytes.len() - 4;
    bytes[at] = 0;
    bytes[at + 2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
    bytes
}

fn body(element: &Element) -> Vec<u8> {
    let mut bytes = attribute(ELEMENT_KEY | NESTED, &attribute(DATA_VALUE, &element.key));
    let verdict = |code: i32, chain: Option<&str>| {
        let mut verdict = attribute(VERDICT_CODE, &code.to_be_bytes());
        verdict.extend(
            chain
                .into_iter()
                .flat_map(|chain| attribute(VERDICT_CHAIN, &text(chain))),
        );
        attribute(DATA_VERDICT | NESTED, &verdict)
    };
    let data = match &element.add {
        None | Some(Data::None) => return bytes,
        Some(Data::Value(value)) => attribute(DATA_VALUE, value),
        Some(Data::Drop) => verdict(CODE_DROP, None),
        Some(Data::Goto(chain)) => verdict(CODE_GOTO, Some(chain)),
    };
    bytes.extend(attribute(ELEMENT_DATA | NESTED, &data));
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
