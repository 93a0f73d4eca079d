//! mk8s-kubelet.
