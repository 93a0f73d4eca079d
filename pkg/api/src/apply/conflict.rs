//! Fields that an apply would take from others, in upstream's words.

use std::fmt;

use super::element::told_path;
use super::managed::{Operation, Owner};
use super::set::Set;
use crate::bounded::{MOST_FINDINGS, step};
use crate::quote::quoted;

/// A field, and who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl" using apps/v1`
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

/// All conflicts of an apply; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(Vec<(String, Set)>);

impl Conflicts {
    /// Of what each owner, in order, would lose; none where that is nothing.
    pub(super) fn of(mut lost: Vec<(&Owner, Set)>) -> Option<Conflicts> {
        lost.retain(|(_, fields)| !fields.is_empty());
        let mut named: Vec<_> = lost
            .into_iter()
            .map(|(owner, fields)| (called(owner), fields))
            .collect();
        named.sort_by(|one, two| one.0.cmp(&two.0));
        (!named.is_empty()).then_some(Conflicts(named))
    }

    /// Those that are told: the first ones, where there are very many.
    pub fn told(&self) -> Vec<Conflict> {
        let mut told = Vec::new();
        for (manager, fields) in &self.0 {
            fields.each(&mut |path| {
                if told.len() < MOST_FINDINGS {
                    told.push(Conflict {
                        manager: manager.clone(),
                        field: told_path(path),
                    });
                }
            });
        }
        told
    }

    fn count(&self) -> usize {
        self.0.iter().map(|(_, fields)| fields.count()).sum()
    }

    /// Those whose field is not in a set; none where all are.
    pub(super) fn outside(mut self, set: &Set) -> Option<Conflicts> {
        self.0.iter_mut().for_each(|(_, fields)| fields.lose(set));
        self.0.retain(|(_, fields)| !fields.is_empty());
        (!self.0.is_empty()).then_some(self)
    }
}

/// How an owner is called.
fn called(owner: &Owner) -> String {
    let mut told = quoted(step(&owner.manager));
    if !owner.subresource.is_empty() {
        told.push_str(&format!(" with subresource {:?}", step(&owner.subresource)));
    }
    if owner.operation == Operation::Update {
        told.push_str(&format!(" using {}", step(&owner.api_version)));
    }
    told
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, told) = (self.count(), self.told());
        if let ([Conflict { manager, field }], 1) = (&told[..], count) {
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {field}");
        }
        write!(f, "Apply failed with {count} conflicts:")?;
        for (at, same) in told.chunk_by(|one, two| one.manager == two.manager).enumerate() {
            let separator = if at == 0 { ' ' } else { '\n' };
            write!(f, "{separator}conflicts with {}:", same[0].manager)?;
            for conflict in same {
                write!(f, "\n- {}", conflict.field)?;
            }
        }
        match count - told.len() {
            0 => Ok(()),
            rest => write!(f, "\nand {rest} more"),
        }
    }
}
