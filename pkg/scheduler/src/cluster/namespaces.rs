//! The labels of namespaces: rules about pods of other namespaces may name these by labels.

use std::collections::HashMap;

use super::node::Labels;
use super::selector::Selector;

/// All namespaces.
#[derive(Debug, Default)]
pub struct Namespaces(HashMap<Box<str>, Labels>);

impl Namespaces {
    /// A namespace came, changed or (none) went.
    pub fn set(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.0.insert(name.into(), labels),
            None => self.0.remove(name),
        };
    }

    /// The labels of a namespace; none: it is not known.
    pub fn labels(&self, name: &str) -> Option<&Labels> {
        self.0.get(name)
    }

    /// The names of those that a selector picks.
    pub fn picked<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a str> {
        let picked = self.0.iter().filter(|(_, labels)| selector.matches(labels));
        picked.map(|(name, _)| &**name)
    }
}
