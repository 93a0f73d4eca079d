//! The controllers and the scheduler together, against the API server in this process.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::too_many_lines,
    reason = "a test tells one story from its beginning to its end"
)]

mod answers;
mod attach;
mod autoscaler;
mod balancer;
mod batch;
mod chaos;
mod cluster;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod garbage;
#[path = "../harness/mod.rs"]
mod harness;
mod job;
mod join;
mod lease;
mod namespace;
mod node;
mod owners;
mod protection;
mod replication;
mod resource_claims;
mod roles;
mod scheduling;
mod scheduling_backlog;
mod scheduling_claims;
mod scheduling_volumes;
mod start;
mod statefulset;
mod tokens;
mod volumes;
mod witness;

/// The binary's: what is measured here is what it does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
