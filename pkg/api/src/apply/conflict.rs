//! Fields that an apply would take from others, in upstream's words.

use std::fmt;

use super::element::Element;
use super::managed::{Operation, Owner};
use super::set::Set;
use crate::go;

/// A field, and who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl" using apps/v1`
    pub manager: String,
    pub path: Vec<Element>,
}

impl Conflict {
    /// How an owner is called.
    pub(super) fn manager(owner: &Owner) -> String {
        let mut told = go::quoted(&owner.manager);
        if !owner.subresource.is_empty() {
            told.push_str(&format!(" with subresource {:?}", owner.subresource));
        }
        if owner.operation == Operation::Update {
            told.push_str(&format!(" using {}", owner.api_version));
        }
        told
    }

    /// `.spec.replicas`
    pub fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// All conflicts of an apply; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(Vec<Conflict>);

impl Conflicts {
    pub(super) fn of(mut conflicts: Vec<Conflict>) -> Conflicts {
        conflicts.sort_by(|one, two| one.manager.cmp(&two.manager));
        Conflicts(conflicts)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Conflict> {
        self.0.iter()
    }

    /// Those whose field is not in a set; none where all are.
    pub(super) fn outside(self, set: &Set) -> Option<Conflicts> {
        let left: Vec<Conflict> = self.0.into_iter().filter(|conflict| !set.has(&conflict.path)).collect();
        (!left.is_empty()).then_some(Conflicts(left))
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.0[..] {
            let Conflict { manager, .. } = only;
            return write!(
                f,
                "Apply failed with 1 conflict: conflict with {manager}: {}",
                only.field()
            );
        }
        write!(f, "Apply failed with {} conflicts:", self.0.len())?;
        for (at, same) in self.0.chunk_by(|one, two| one.manager == two.manager).enumerate() {
            let separator = if at == 0 { ' ' } else { '\n' };
            write!(f, "{separator}conflicts with {}:", same[0].manager)?;
            for conflict in same {
                write!(f, "\n- {}", conflict.field())?;
            }
        }
        Ok(())
    }
}
