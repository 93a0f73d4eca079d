//! Sizes and costs that are known to be between two bounds. Sums and products end at the largest number.

/// From how much to how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    pub(super) const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    pub(super) const fn exactly(value: u64) -> Range {
        Range { min: value, max: value }
    }

    pub(super) fn plus(self, other: Range) -> Range {
        Range {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    pub(super) fn times(self, other: Range) -> Range {
        Range {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    /// Times a factor, rounded up.
    pub(super) fn share(self, factor: f64) -> Range {
        // Beyond the largest number, a conversion ends at it.
        let of = |value: u64| (value as f64 * factor).ceil() as u64;
        Range {
            min: of(self.min),
            max: of(self.max),
        }
    }

    pub(super) fn union(self, other: Range) -> Range {
        Range {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}
