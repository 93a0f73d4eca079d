//! The devices of a node in the order in which they are tried.

use super::{Device, NodePool, State};

#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub driver: &'a str,
    pub pool: &'a str,
    pub device: Device<'a>,
    pub at: Cursor,
}

/// A place in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    pool: u32,
    slice: u32,
    device: u32,
}

impl Cursor {
    /// The first place of a pool.
    pub fn of_pool(pool: u32) -> Self {
        Cursor {
            pool,
            ..Cursor::default()
        }
    }

    /// The place after it.
    pub fn after(self) -> Self {
        Cursor {
            device: self.device + 1,
            ..self
        }
    }

    /// Whether it is in this pool.
    pub fn is_in(self, pool: u32) -> bool {
        self.pool == pool
    }
}

/// The first device from here on.
pub fn next<'a>(pools: &[NodePool<'a>], mut at: Cursor) -> Option<Candidate<'a>> {
    loop {
        let pool = pools.get(at.pool as usize)?;
        let slice = pool.slices.get(at.slice as usize);
        let Some(slice) = slice.filter(|_| pool.state == State::Whole) else {
            at = Cursor::of_pool(at.pool + 1);
            continue;
        };
        if let Some(device) = slice.device(at.device as usize) {
            return Some(Candidate {
                driver: pool.driver,
                pool: pool.name,
                device,
                at,
            });
        }
        at = Cursor {
            slice: at.slice + 1,
            device: 0,
            ..at
        };
    }
}
