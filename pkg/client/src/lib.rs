//! mk8s-client.
