//! What is wrong with one object, as far as it is told: there may be as much wrong with a body as it has bytes, and each
//! finding may show as many.

use std::ops::{Deref, DerefMut};

use serde_json::Value;

use crate::bounded::{MOST_FINDINGS, MOST_WORDS};
use crate::status::FieldError;

/// Findings in their order. What comes after [`MOST_FINDINGS`] of them, or after about [`MOST_WORDS`], is counted and not kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    kept: Vec<FieldError>,
    /// About how many bytes those are in words.
    words: usize,
    left_out: usize,
}

impl Errors {
    pub const fn new() -> Self {
        Errors {
            kept: Vec::new(),
            words: 0,
            left_out: 0,
        }
    }

    pub fn push(&mut self, error: FieldError) {
        if self.is_full() {
            self.left_out += 1;
        } else {
            self.words += error.field.len() + error.detail.len() + error.value.as_ref().map_or(0, length);
            self.kept.push(error);
        }
    }

    /// The same of one that is made only where it is kept: what it shows may be long, and not its own.
    pub fn push_with(&mut self, error: impl FnOnce() -> FieldError) {
        if self.is_full() {
            self.left_out += 1;
        } else {
            self.push(error());
        }
    }

    /// Whether what comes next is only counted.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= MOST_FINDINGS || self.words > MOST_WORDS
    }

    /// How many were found, kept or not.
    #[expect(
        clippy::len_without_is_empty,
        reason = "none is kept only where none was found, as of a slice"
    )]
    pub fn len(&self) -> usize {
        self.kept.len() + self.left_out
    }

    pub fn append(&mut self, other: &mut Errors) {
        let other = std::mem::take(other);
        self.left_out += other.left_out;
        self.extend(other.kept);
    }

    /// Puts one before what was found after it. `at` is among those that are kept.
    pub fn insert(&mut self, at: usize, error: FieldError) {
        self.kept.insert(at, error);
    }

    /// Forgets all but the first `count` that were found.
    pub fn truncate(&mut self, count: usize) {
        let kept = std::mem::take(&mut self.kept);
        let left_out = self.left_out.min(count.saturating_sub(kept.len()));
        *self = kept.into_iter().take(count).collect();
        self.left_out += left_out;
    }

    pub fn clear(&mut self) {
        *self = Errors::new();
    }

    pub fn retain(&mut self, keep: impl FnMut(&FieldError) -> bool) {
        self.kept.retain(keep);
    }
}

/// About how many bytes a value is in words.
pub(crate) fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| length(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => {
            map.iter()
                .map(|(key, value)| key.len() + length(value) + 4)
                .sum::<usize>()
                + 2
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

impl Deref for Errors {
    type Target = [FieldError];

    fn deref(&self) -> &[FieldError] {
        &self.kept
    }
}

impl DerefMut for Errors {
    fn deref_mut(&mut self) -> &mut [FieldError] {
        &mut self.kept
    }
}

impl<const N: usize> PartialEq<[FieldError; N]> for Errors {
    fn eq(&self, other: &[FieldError; N]) -> bool {
        self.left_out == 0 && self.kept == other
    }
}

impl From<FieldError> for Errors {
    fn from(error: FieldError) -> Self {
        Errors::from_iter([error])
    }
}

impl Extend<FieldError> for Errors {
    fn extend<I: IntoIterator<Item = FieldError>>(&mut self, errors: I) {
        errors.into_iter().for_each(|error| self.push(error));
    }
}

impl FromIterator<FieldError> for Errors {
    fn from_iter<I: IntoIterator<Item = FieldError>>(errors: I) -> Self {
        let mut all = Errors::new();
        all.extend(errors);
        all
    }
}

impl IntoIterator for Errors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

/// Findings that a refusal tells of, and how many there are beside them.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    pub kept: &'a [FieldError],
    pub left_out: usize,
}

impl<'a> From<&'a Errors> for Findings<'a> {
    fn from(errors: &'a Errors) -> Self {
        Findings {
            kept: &errors.kept,
            left_out: errors.left_out,
        }
    }
}

impl<'a> From<&'a [FieldError]> for Findings<'a> {
    fn from(kept: &'a [FieldError]) -> Self {
        Findings { kept, left_out: 0 }
    }
}

impl<'a, const N: usize> From<&'a [FieldError; N]> for Findings<'a> {
    fn from(kept: &'a [FieldError; N]) -> Self {
        Findings::from(kept.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(value: &str) -> FieldError {
        FieldError::invalid("a", value, "b")
    }

    #[test]
    fn findings_are_kept_to_a_bound_and_counted_beyond_it() {
        let mut errors: Errors = (0..MOST_FINDINGS + 5).map(|at| error(&at.to_string())).collect();
        assert_eq!((errors.len(), errors.iter().len()), (MOST_FINDINGS + 5, MOST_FINDINGS));
        let start = errors.len();
        errors.push(error("x"));
        assert_eq!(errors.len(), start + 1, "what is found is seen by those who compare");
        errors.truncate(start);
        assert_eq!((errors.len(), errors.left_out), (start, 5));
        errors.truncate(1);
        assert_eq!((errors.len(), errors.is_full()), (1, false));
        errors.truncate(20);
        assert_eq!((errors.len(), errors.left_out), (1, 0), "there were no more");
        errors = Errors::new();
        errors.truncate(20);
        assert_eq!((errors.len(), errors.is_empty()), (0, true));
    }

    #[test]
    fn what_was_only_counted_stays_counted_among_others() {
        let many = || (0..MOST_FINDINGS + 5).map(|at| error(&at.to_string()));
        let (mut all, mut more): (Errors, Errors) = (many().collect(), many().collect());
        all.append(&mut more);
        assert_eq!((all.len(), all.iter().len()), (2 * MOST_FINDINGS + 10, MOST_FINDINGS));
        assert_eq!(more, Errors::new());
        all.retain(|found| found.value == Some("0".into()));
        assert_eq!(
            (all.len(), all.iter().len()),
            (MOST_FINDINGS + 11, 1),
            "nobody knows what those were"
        );
    }

    #[test]
    fn few_of_those_that_show_much_are_kept() {
        let long = "x".repeat(MOST_WORDS / 4);
        let errors: Errors = (0..100).map(|_| error(&long)).collect();
        assert_eq!((errors.len(), errors.iter().len()), (100, 4));
        let list: Value = (0..3).map(|_| Value::from(long.as_str())).collect();
        let lists: Errors = (0..3).map(|_| FieldError::invalid("a", list.clone(), "b")).collect();
        assert_eq!(lists.iter().len(), 2);
        let mut both = Errors::new();
        both.append(&mut errors.clone());
        assert_eq!(both, errors);
    }
}
