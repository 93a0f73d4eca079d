//! How much is made of an object where a definition says what: in proportion to the object's length, whatever it says.

use serde_json::Value;

use crate::errors;

/// What any object may cost, however short it is.
const LEAST: usize = 64 << 10;

/// Counts what an object costs, of one kind: bytes that are written of it, or looks at its parts.
pub struct Budget<'v> {
    object: &'v Value,
    left: usize,
    is_measured: bool,
}

impl<'v> Budget<'v> {
    /// `LEAST`, and the object's own length.
    pub fn of(object: &'v Value) -> Budget<'v> {
        Budget {
            object,
            left: LEAST,
            is_measured: false,
        }
    }

    /// None, from the first time that there is not enough left.
    pub fn take(&mut self, cost: usize) -> Option<()> {
        if cost >= self.left && !self.is_measured {
            // Few objects cost so much that their length matters.
            self.is_measured = true;
            self.left = self.left.saturating_add(errors::length(self.object));
        }
        self.left = self.left.saturating_sub(cost);
        (self.left > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_ends_it() {
        let object = Value::String("a".repeat(LEAST));
        let mut budget = Budget::of(&object);
        for (cost, fits) in [(LEAST, true), (LEAST - 1, true), (2, true), (9, false), (0, false)] {
            assert_eq!(budget.take(cost).is_some(), fits, "{cost}");
        }
        assert_eq!(Budget::of(&Value::Null).take(usize::MAX), None);
    }
}
