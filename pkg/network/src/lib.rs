//! mk8s-network.
