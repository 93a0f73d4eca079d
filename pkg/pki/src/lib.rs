//! mk8s-pki.
