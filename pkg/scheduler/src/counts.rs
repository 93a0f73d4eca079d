//! How many pods that a selector picks are on each node: counted once when a selector is first asked for, then kept with every pod that
//! comes or goes, so that a decision costs the nodes it compares, not the pods on them.

use std::collections::HashMap;

use kube::core::{Selector, SelectorExt};

use crate::info::Placed;

/// Selectors kept for a namespace; beyond it, those that were asked for longest ago are forgotten.
const KEPT: usize = 64;
/// And of so many namespaces.
const NAMESPACES: usize = 256;

/// The counts of all selectors in use.
#[derive(Default)]
pub struct Counts {
    namespaces: HashMap<String, HashMap<String, Count>>,
    clock: u64,
}

struct Count {
    selector: Selector,
    on_node: HashMap<String, i64>,
    used: u64,
}

/// Does a selector count this pod?
fn counts(selector: &Selector, pod: &Placed) -> bool {
    !pod.deleting && selector.matches(&pod.labels)
}

impl Counts {
    /// A pod came to a node (1) or left it (-1).
    pub fn change(&mut self, pod: &Placed, node: &str, by: i64) {
        let Some(all) = self.namespaces.get_mut(&*pod.namespace) else {
            return;
        };
        for count in all.values_mut().filter(|c| counts(&c.selector, pod)) {
            let on_node = count.on_node.entry(node.to_owned()).or_default();
            *on_node += by;
            if *on_node == 0 {
                count.on_node.remove(node);
            }
        }
    }

    /// Sees to it that a selector is counted; `pods` are all pods with their nodes.
    pub fn prepare<'p>(
        &mut self,
        namespace: &str,
        selector: &Selector,
        pods: impl Iterator<Item = (&'p Placed, &'p str)>,
    ) {
        self.clock += 1;
        if self.namespaces.len() > NAMESPACES && !self.namespaces.contains_key(namespace) {
            let used = |all: &HashMap<String, Count>| all.values().map(|count| count.used).max();
            let oldest = self.namespaces.iter().min_by_key(|(_, all)| used(all));
            if let Some(oldest) = oldest.map(|(namespace, _)| namespace.clone()) {
                self.namespaces.remove(&oldest);
            }
        }
        let all = self.namespaces.entry(namespace.to_owned()).or_default();
        let text = selector.to_string();
        if let Some(known) = all.get_mut(&text) {
            known.used = self.clock;
            return;
        }
        let mut on_node = HashMap::new();
        for (pod, node) in pods {
            if &*pod.namespace == namespace && counts(selector, pod) {
                *on_node.entry(node.to_owned()).or_default() += 1;
            }
        }
        all.insert(
            text,
            Count {
                selector: selector.clone(),
                on_node,
                used: self.clock,
            },
        );
        if all.len() > KEPT
            && let Some(oldest) = all.iter().min_by_key(|(_, c)| c.used).map(|(text, _)| text.clone())
        {
            all.remove(&oldest);
        }
    }

    /// The counts of a selector that was prepared, by node.
    pub fn of(&self, namespace: &str, selector: &Selector) -> Option<&HashMap<String, i64>> {
        Some(&self.namespaces.get(namespace)?.get(&selector.to_string())?.on_node)
    }
}
