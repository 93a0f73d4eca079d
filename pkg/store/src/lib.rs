//! mk8s-store.
