//! What all containers of a pod share: namespaces, the pause process that holds them, and the files that name the pod.

pub mod files;
