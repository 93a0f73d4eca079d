//! mk8s-api.
