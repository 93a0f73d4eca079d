//! The controllers: each compares what objects ask for with what there is, and writes the difference.
//!
//! One row of [`CONTROLLERS`] per controller, one file per row. A controller gets a [`Context`], names the informers whose events
//! concern it, and hands its [`driver::Reconcile`] to the [`driver`]: the key of an object comes in, the object is read again, a pure
//! function decides, the difference is written. Nothing polls; nothing is written when nothing changed.
//!
//! To write one: a file that says at its top what it watches, what it writes and what it must never do; `run`, which wires informers
//! to keys; `Reconcile`, which reads, plans, acts; the plan as a pure function with its tests as tables; a row below. Objects are found
//! by the informers' indexes ([`index`]), dependents by their owner's namespace and uid ([`index::Owned`]). Who counts what it makes waits with `Seen` until its own writes have come back, and need not
//! look again because of them (`Seen::is_echo`). A key of thousands of objects rests between two looks ([`rests`]). What has to be done
//! by a time whether or not the rest succeeds, an error takes along ([`driver::Next::even_if`]).
//! Dependents are taken and let go by [`adoption`], conditions put by `mk8s_api::conditions`, and a delete says which object it
//! means ([`delete`]). A panic is its key's failure, and queues are counted; both by the driver. Its rights are those of its
//! account in the bootstrap roles, which `tests/controllers` exercises.

pub mod adoption;
pub mod autoscaler;
pub mod certificates;
pub mod cluster_roles;
pub mod context;
pub mod cronjob;
pub mod daemonset;
pub mod delete;
pub mod deployment;
pub mod disruption;
pub mod driver;
pub mod endpoints;
pub mod error;
pub mod failed_pods;
pub mod garbage_collector;
pub mod hash;
pub mod history;
pub mod index;
pub mod job;
pub mod meta;
pub mod monitor;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod pod;
pub mod pod_gc;
pub mod protection;
pub mod replicas;
pub mod replication;
pub mod resource_claim;
pub mod rest;
mod rests;
pub mod scale;
mod selecting;
pub mod service_account;
pub mod service_lb;
pub mod statefulset;
pub mod taint_eviction;
pub mod token;
#[cfg(test)]
mod told;
pub mod ttl;
#[cfg(test)]
mod upstream;
pub mod volume;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use mk8s_supervisor::OnExit;

pub use context::Context;
pub use error::Error;

/// A row of the table: what runs, and as whom.
pub struct Controller {
    /// The name in logs and of the supervised task.
    pub name: &'static str,
    /// The service account in kube-system whose rights it has (upstream's names, so that upstream's bootstrap roles fit). Empty: what
    /// makes the tokens of accounts has none itself, and is the controller manager's user.
    pub account: &'static str,
    /// Runs until its scope ends, and then to the end of what it has begun; an error is a failure that the supervisor restarts.
    pub run: fn(Context) -> BoxFuture<'static, Result<(), Error>>,
}

macro_rules! rows {
    ($($name:literal, $account:literal, $run:path;)*) => {
        &[$(Controller { name: $name, account: $account, run: |ctx| Box::pin($run(ctx)) }),*]
    };
}

/// Every controller of mk8s.
pub const CONTROLLERS: &[Controller] = rows! {
    "replicaset", "replicaset-controller", replication::run::<ReplicaSet>;
    "replicationcontroller", "replication-controller", replication::run::<ReplicationController>;
    "deployment", "deployment-controller", deployment::run;
    "daemonset", "daemon-set-controller", daemonset::run;
    "statefulset", "statefulset-controller", statefulset::run;
    "serviceaccount", "service-account-controller", service_account::run;
    "root-ca-publisher", "root-ca-cert-publisher", service_account::run_root_ca;
    "endpointslice", "endpointslice-controller", endpoints::slices::run;
    "endpoints", "endpoint-controller", endpoints::legacy::run;
    "endpointslice-mirroring", "endpointslicemirroring-controller", endpoints::mirroring::run;
    "service-lb", "service-controller", service_lb::run;
    "node-ipam", "node-controller", node_ipam::run;
    "namespace", "namespace-controller", namespace::run;
    "garbage-collector", "generic-garbage-collector", garbage_collector::run;
    "job", "job-controller", job::run;
    "horizontal-pod-autoscaler", "horizontal-pod-autoscaler", autoscaler::run;
    "cronjob", "cronjob-controller", cronjob::run;
    "ttl-after-finished", "ttl-after-finished-controller", ttl::run;
    "node-lifecycle", "node-controller", node_lifecycle::run;
    "node-ttl", "ttl-controller", node_ttl::run;
    "taint-eviction", "node-controller", taint_eviction::run;
    "pod-garbage-collector", "pod-garbage-collector", pod_gc::run;
    "disruption", "disruption-controller", disruption::run;
    "stale-disruption", "disruption-controller", disruption::stale::run;
    "pvc-protection", "pvc-protection-controller", protection::claims::run;
    "pv-protection", "pv-protection-controller", protection::volumes::run;
    "vac-protection", "volumeattributesclass-protection-controller", protection::attributes_classes::run;
    "persistentvolume-binder", "persistent-volume-binder", volume::binder::run;
    "attachdetach", "attachdetach-controller", volume::attach::run;
    "local-path-provisioner", "persistent-volume-binder", volume::local_path::run;
    "ephemeral-volume", "ephemeral-volume-controller", volume::ephemeral::run;
    "volume-expand", "expand-controller", volume::expand::run;
    "resource-claim", "resource-claim-controller", resource_claim::run;
    "service-cidrs", "service-cidrs-controller", protection::service_cidrs::run;
    "clusterrole-aggregation", "clusterrole-aggregation-controller", cluster_roles::run;
    "certificate-approver", "certificate-controller", certificates::approve::run;
    "certificate-signer", "certificate-controller", certificates::sign::run;
    "certificate-cleaner", "certificate-controller", certificates::clean::run;
    "bootstrap-signer", "bootstrap-signer", token::signer::run;
    "token-cleaner", "token-cleaner", token::cleaner::run;
    "serviceaccount-token", "", token::accounts::run;
    "legacy-service-account-token-cleaner", "legacy-service-account-token-cleaner", token::unused::run;
};

/// Starts every controller as a task of the context's scope.
pub fn run(ctx: &Context) {
    for controller in CONTROLLERS {
        let base = ctx.clone();
        ctx.scope.spawn(controller.name, OnExit::Restart, move |_| {
            let run = (controller.run)(base.for_controller(controller.account));
            async move { run.await.map_err(Into::into) }
        });
    }
}
