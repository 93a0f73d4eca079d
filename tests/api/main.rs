//! The API as its clients see it: the whole control plane in this process, on a store of its own, behind real TLS on a
//! loopback port; asked through the `kube` crate and through stock kubectl, the oldest and the newest that mk8s knows.
#![allow(clippy::unwrap_used)]

mod cluster;
mod definitions;
mod everyday;
#[path = "../harness/mod.rs"]
mod harness;
mod kubectl;
mod objects;
mod old_versions;
mod reading;
mod who;
