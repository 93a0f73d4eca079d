//! mk8s-proxy.
