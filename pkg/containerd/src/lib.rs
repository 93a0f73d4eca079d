//! mk8s-containerd.
