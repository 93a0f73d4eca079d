//! What an evaluation may come to. Its cost is what its author is told; some functions cost one, whatever they do, and so what it
//! makes and how long it takes are bounded too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cost;
use crate::digest;
use crate::value::{Failure, Items, List, Map, Outcome, Text, Value};

/// A list and itself, a thousand times, cost next to nothing.
const MOST_MADE: usize = 128 << 20;
/// Much longer than what costs as much as it takes.
const LONGEST: Duration = Duration::from_secs(10);
/// How often the clock is looked at.
const EVERY: u32 = 64;

pub(super) struct Meter {
    pub(super) cost: u64,
    limit: u64,
    /// Bytes of all values that were made, also of those that are gone.
    made: usize,
    charges: u32,
    begun: Instant,
}

impl Meter {
    pub(super) fn new(limit: u64) -> Meter {
        digest::begin();
        Meter {
            cost: 0,
            limit,
            made: 0,
            charges: 0,
            begun: Instant::now(),
        }
    }

    pub(super) fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.cost = self.cost.saturating_add(cost);
        self.charges = self.charges.wrapping_add(1);
        let late = self.charges.is_multiple_of(EVERY) && self.begun.elapsed() > LONGEST;
        if self.cost > self.limit || late || digest::is_over() {
            Err(Failure::Cost)
        } else {
            Ok(())
        }
    }

    /// Refuses what costs too much before it is done, as far as its arguments tell.
    pub(super) fn afford(&mut self, function: &str, overload: &str, args: &[Outcome<'_>]) -> Result<(), Failure> {
        // Whatever becomes of it, it costs no less than with the least of results.
        let least = cost::call(function, overload, args, &Ok(Value::Null));
        match self.cost.saturating_add(least) > self.limit {
            true => self.charge(least),
            false => Ok(()),
        }
    }

    /// Counts the bytes of a value, where nobody else has it.
    pub(super) fn count(&mut self, value: &Value<'_>) -> Result<(), Failure> {
        let bytes = match value {
            Value::String(Text::Owned(text)) if Arc::strong_count(text) == 1 => text.len(),
            Value::Bytes(bytes) if Arc::strong_count(bytes) == 1 => bytes.len(),
            Value::List(List {
                items: Items::Values(values),
                ..
            }) if Arc::strong_count(values) == 1 => size_of_val(&values[..]),
            Value::Map(Map::Entries(entries)) if Arc::strong_count(entries) == 1 => entries.bytes(),
            _ => 0,
        };
        self.count_bytes(bytes)
    }

    pub(super) fn count_bytes(&mut self, bytes: usize) -> Result<(), Failure> {
        self.made = self.made.saturating_add(bytes);
        if self.made > MOST_MADE {
            Err(Failure::Cost)
        } else {
            Ok(())
        }
    }
}

/// Bytes of a list's or a map's own.
pub(super) fn bytes_of(value: &Value<'_>) -> usize {
    match value {
        Value::List(list) => list.len() * size_of::<Value<'_>>(),
        Value::Map(Map::Entries(entries)) => entries.bytes(),
        _ => 0,
    }
}
