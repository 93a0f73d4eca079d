//! Kinds that are stored and never served: what the API server writes down for itself.

use super::Resource;
use super::row::row;

pub(super) fn rows() -> Vec<Resource> {
    vec![
        // Named after a port of nodes; its spec.parentRef is the Service that holds it, as an IPAddress has it.
        row("internal.mk8s.io", "v1", "NodePort", "nodeports").cluster(),
    ]
}
