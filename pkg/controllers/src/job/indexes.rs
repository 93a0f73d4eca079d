//! Sets of completion indexes, kept and written as intervals: `1,3-5,7`. A Job may have a hundred thousand of them.

use std::fmt;

/// Disjoint intervals in ascending order, never adjacent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what a status says; indexes at or above `completions` don't count any more.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut all = Indexes::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) else {
                continue;
            };
            if first < completions {
                all.insert(first, last.min(completions - 1));
            }
        }
        all
    }

    fn insert(&mut self, first: i32, last: i32) {
        let start = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = self.0.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let (mut first, mut last) = (first, last);
        if start < end {
            first = first.min(self.0[start].0);
            last = last.max(self.0[end - 1].1);
        }
        self.0.splice(start..end, [(first, last)]);
    }

    /// Adds one.
    pub fn add(&mut self, index: i32) {
        self.insert(index, index);
    }

    /// The union of both.
    pub fn union(&self, other: &Indexes) -> Indexes {
        let mut all = self.clone();
        for (first, last) in &other.0 {
            all.insert(*first, *last);
        }
        all
    }

    /// Is it among them?
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    pub fn len(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are in both.
    pub fn shared(&self, other: &Indexes) -> i32 {
        let (mut a, mut b, mut shared) = (0, 0, 0);
        while let (Some(x), Some(y)) = (self.0.get(a), other.0.get(b)) {
            shared += (x.1.min(y.1) - x.0.max(y.0) + 1).max(0);
            if x.1 < y.1 { a += 1 } else { b += 1 }
        }
        shared
    }

    /// The first `count` below `completions` that are not among them.
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut candidate = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            while candidate < first.min(completions) && found.len() < count {
                found.push(candidate);
                candidate += 1;
            }
            candidate = candidate.max(last.saturating_add(1));
        }
        found
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        let mut all = Indexes::default();
        for index in indexes {
            all.add(index);
        }
        all
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                // Two neighbours are written one by one.
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_read_and_write_as_intervals() {
        for (text, completions, expected) in [
            ("", 5, ""),
            ("0,1,2", 5, "0-2"),
            ("1,3-5,7", 10, "1,3-5,7"),
            ("1,3-5,7", 5, "1,3,4"),
            ("4,2,3,0", 9, "0,2-4"),
            ("x,2", 9, "2"),
        ] {
            assert_eq!(Indexes::parse(text, completions).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn sets_count_contain_join_and_miss() {
        let all = Indexes::parse("1,3-5", 10);
        assert_eq!((all.len(), all.has(4), all.has(2), all.has(0)), (4, true, false, false));
        assert_eq!(all.missing(3, 10), [0, 2, 6]);
        assert_eq!(all.missing(9, 7), [0, 2, 6]);
        assert_eq!(all.union(&Indexes::parse("2,8", 10)).to_string(), "1-5,8");
        assert_eq!(all.shared(&Indexes::parse("4-9", 10)), 2);
    }
}
