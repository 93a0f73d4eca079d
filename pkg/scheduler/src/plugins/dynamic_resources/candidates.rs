//! The devices of a node in the order in which they are tried.

use crate::cluster::claims::{Device, NodePool, State};

#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub driver: &'a str,
    pub pool: &'a str,
    pub device: Device<'a>,
}

/// A place in that order.
#[derive(Clone, Copy, Default)]
pub struct Cursor {
    pool: usize,
    slice: usize,
    device: usize,
}

impl Cursor {
    /// The place after it.
    pub fn after(self) -> Self {
        Cursor {
            device: self.device + 1,
            ..self
        }
    }
}

/// The first device from here on, and where it is.
pub fn next<'a>(pools: &[NodePool<'a>], mut from: Cursor) -> Option<(Cursor, Candidate<'a>)> {
    loop {
        let pool = pools.get(from.pool)?;
        let slice = pool.slices.get(from.slice).filter(|_| pool.state == State::Whole);
        let Some(slice) = slice else {
            from = Cursor {
                pool: from.pool + 1,
                ..Cursor::default()
            };
            continue;
        };
        if let Some(device) = slice.device(from.device) {
            let candidate = Candidate {
                driver: pool.driver,
                pool: pool.name,
                device,
            };
            return Some((from, candidate));
        }
        from = Cursor {
            slice: from.slice + 1,
            device: 0,
            ..from
        };
    }
}
