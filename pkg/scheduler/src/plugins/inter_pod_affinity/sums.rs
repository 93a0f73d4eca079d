//! Sums by domain of several terms with one key. A few are looked up one by one for each node; many are put together first, so that a
//! node costs the same however many there are.

use std::ptr;

use smallvec::SmallVec;

use crate::cluster::{Column, DomainId, NONE, NodeInfo, Sums};

/// So many terms are looked up one by one.
const FEW: usize = 8;

/// The sums of one key.
pub struct OfKey<'a> {
    column: &'a Column,
    terms: SmallVec<[(i64, &'a Sums); 2]>,
    /// Those that are not looked up one by one.
    together: Option<Sums>,
}

impl OfKey<'_> {
    /// The sum of the node's domain; none: it is in none.
    pub fn of(&self, node: &NodeInfo) -> Option<i64> {
        let domain = self.column.domain(node.id);
        (domain != NONE).then(|| self.sum(domain))
    }

    fn sum(&self, domain: DomainId) -> i64 {
        let of = |sums: &Sums| sums.get(&domain).copied().unwrap_or(0);
        let terms = self.terms.iter().map(|(factor, sums)| factor * of(sums));
        terms.sum::<i64>() + self.together.as_ref().map_or(0, of)
    }

    /// The key whose sums they are.
    pub fn key(&self) -> &str {
        self.column.key()
    }
}

/// The sums of all keys.
#[derive(Default)]
pub struct ByKey<'a>(SmallVec<[OfKey<'a>; 2]>);

impl<'a> ByKey<'a> {
    /// The sums of a term, each multiplied.
    pub fn push(&mut self, column: &'a Column, factor: i64, sums: &'a Sums) {
        if !sums.is_empty() {
            self.of(column).terms.push((factor, sums));
        }
    }

    /// Sums to add those of further terms to.
    pub fn together(&mut self, column: &'a Column) -> &mut Sums {
        self.of(column).together.get_or_insert_default()
    }

    fn of(&mut self, column: &'a Column) -> &mut OfKey<'a> {
        let known = self.0.iter().position(|own| ptr::eq(own.column, column));
        let at = known.unwrap_or_else(|| {
            self.0.push(OfKey {
                column,
                terms: SmallVec::new(),
                together: None,
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// All terms are there.
    pub fn finish(mut self) -> SmallVec<[OfKey<'a>; 2]> {
        for own in self.0.iter_mut().filter(|own| own.terms.len() > FEW) {
            let together = own.together.get_or_insert_default();
            for (factor, sums) in own.terms.drain(..) {
                for (domain, sum) in sums {
                    *together.entry(*domain).or_default() += factor * sum;
                }
            }
        }
        self.0
    }
}
