//! mk8s-apiserver.
