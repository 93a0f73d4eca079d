//! Equal parts of custom kinds' schemas are one node, and equal names one text, as long as somebody has them.
//!
//! A part is known by a keyed hash of 128 bits over what it says and the addresses of the parts below it: nobody outside
//! the process can make two that differ collide.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use crate::schema::{Name, Node, Schema};

#[derive(Default)]
struct Interner {
    hashers: [RandomState; 2],
    nodes: HashMap<u128, Weak<Node>>,
    names: HashSet<Arc<str>>,
    /// How many there were when the dead were last swept out, and the bytes of names that came since.
    swept: usize,
    grown: usize,
}

/// Bytes of names of nobody that may pile up, and of one that may be shared.
const MOST_GROWN: usize = 4 << 20;
const LONGEST: usize = 1 << 10;

static INTERNER: LazyLock<Mutex<Interner>> = LazyLock::new(Mutex::default);

/// The node that is said by `key`; `make` makes it where there is none yet.
pub(super) fn node(key: &[u8], make: impl FnOnce() -> Node) -> Schema {
    let mut interner = INTERNER.lock();
    let [high, low] = &interner.hashers;
    let hash = u128::from(high.hash_one(key)) << 64 | u128::from(low.hash_one(key));
    if let Some(known) = interner.nodes.get(&hash).and_then(Weak::upgrade) {
        return Schema(known);
    }
    drop(interner);
    let made = Arc::new(make());
    interner = INTERNER.lock();
    interner.nodes.insert(hash, Arc::downgrade(&made));
    interner.sweep();
    Schema(made)
}

pub(super) fn name(text: &str) -> Name {
    if text.len() > LONGEST {
        return Name::Shared(text.into());
    }
    let mut interner = INTERNER.lock();
    if let Some(known) = interner.names.get(text) {
        return Name::Shared(known.clone());
    }
    let made: Arc<str> = text.into();
    interner.names.insert(made.clone());
    interner.grown += text.len();
    interner.sweep();
    Name::Shared(made)
}

impl Interner {
    /// Forgets what nobody has any more, each time there are twice as many as the last time.
    fn sweep(&mut self) {
        let all = self.nodes.len() + self.names.len();
        if all < 2 * self.swept.max(1024) && self.grown < MOST_GROWN {
            return;
        }
        self.nodes.retain(|_, node| node.strong_count() > 0);
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.swept = self.nodes.len() + self.names.len();
        self.grown = 0;
    }
}

/// How many nodes somebody has.
#[cfg(test)]
pub(super) fn living() -> usize {
    let interner = INTERNER.lock();
    interner.nodes.values().filter(|node| node.strong_count() > 0).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::living;
    use crate::schema::custom::compile;

    #[test]
    fn equal_parts_are_one_node_while_somebody_has_them() {
        let of = |name: &str| {
            let part = json!({"type": "object", "description": name, "required": ["shared-a"], "properties": {
                "shared-a": {"type": "string", "pattern": "^shared$", "description": "of this one"},
                "shared-b": {"type": "array", "items": {"type": "integer", "maximum": 77_777}}}});
            json!({"type": "object", "properties": {name: part, "spec": part}})
        };
        let (one, two) = (compile(&of("one")).unwrap(), compile(&of("two")).unwrap());
        assert_ne!(one, two);
        assert_eq!(one.field("spec").unwrap().schema, two.field("spec").unwrap().schema);
        assert_eq!(one.field("spec").unwrap().schema, one.field("one").unwrap().schema);
        assert_eq!(compile(&of("one")).unwrap(), one);
        let before = living();
        let many: Vec<_> = (0..5000)
            .map(|at| compile(&json!({"type": "object", "maxProperties": at})).unwrap())
            .collect();
        assert!(living() >= before + 5000);
        drop(many);
        // The next ones sweep out those.
        for at in 0..5000 {
            compile(&json!({"type": "object", "minProperties": at})).unwrap();
        }
        assert!(super::INTERNER.lock().nodes.len() < 9000);
    }

    #[test]
    fn names_of_nobody_do_not_pile_up() {
        let held = || {
            super::INTERNER
                .lock()
                .names
                .iter()
                .map(|name| name.len())
                .sum::<usize>()
        };
        let before = held();
        for number in 0..20_000 {
            super::name(&format!("{number}{}", "x".repeat(1000)));
        }
        super::name(&"y".repeat(16 << 20));
        assert!(held() < before + 2 * super::MOST_GROWN, "{}", held());
    }
}
