//! delete and deletecollection: what a deletion comes to is decided by a pure function, then done.

use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Response, StatusCode};
use mk8s_api::registry::{Deletion, Dependents, Resource};
use mk8s_api::status::Status;
use mk8s_api::{meta, time};
use mk8s_store::Op;
use mk8s_supervisor::job;
use serde_json::{Value, json};

use super::list_body::{Source, respond_list};
use super::{answer, decode, list};
use crate::admission::{Operation, Options};
use crate::at_once;
use crate::call::Call;
use crate::crd::{self, conversion};
use crate::filter::Filter;
use crate::guaranteed_update::Written;
use crate::guaranteed_update::{Attempt, Current, Done, Step, guaranteed_update};
use crate::managers;
use crate::object::Object;
use crate::options::{DeleteOptions, ListOptions, Propagation};
use crate::respond;
use crate::write::Printed;

pub async fn delete(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let sent = decode::delete_options(call, &body)?;
    let options = DeleteOptions::parse(&call.query, sent.as_ref())?;
    call.check_key()?;
    with_warning(call, &options, named(call, &options).await)
}

/// Tells of dependents that are left behind, whatever came of the request.
fn with_warning(
    call: &Call,
    options: &DeleteOptions,
    result: Result<Response<Body>, Status>,
) -> Result<Response<Body>, Status> {
    let said = options.propagation.is_some() || options.orphan_dependents.is_some();
    let Some(warning) = call.row.resource.semantics.dependents_warning.filter(|_| !said) else {
        return result;
    };
    let warnings = [warning.to_string()];
    let mut response = result.map_err(|status| status.warned(&warnings))?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

async fn named(call: &Call, options: &DeleteOptions) -> Result<Response<Body>, Status> {
    match delete_object(call, &call.info.namespace, call.info.path_name(), options).await? {
        Outcome::Gone(last) if call.row.resource.semantics.returns_deleted => {
            answer(call, StatusCode::OK, Written::Tree(last), &[]).await
        }
        Outcome::Gone(last) => {
            let mut details = json!({
                "name": meta::name(&last), "kind": call.row.plural(), "uid": meta::uid(&last),
            });
            if !call.row.group().is_empty() {
                details["group"] = call.row.group().into();
            }
            // It names no code, as the status of nothing else.
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            respond::value(StatusCode::OK, call.output, status)
        }
        Outcome::Waits(written) => {
            let code = if options.orphan_dependents == Some(false) {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            answer(call, code, written, &[]).await
        }
    }
}

pub async fn delete_collection(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let query = ListOptions::parse(&call.query, &call.info)?;
    let filter = Filter::new(&call.row, &call.info, &query)?;
    let sent = decode::delete_options(call, &body)?;
    let options = DeleteOptions::parse(&call.query, sent.as_ref())?;
    with_warning(call, &options, collection(call, &query, &filter, &options).await)
}

async fn collection(
    call: &Call,
    query: &ListOptions,
    filter: &Filter,
    options: &DeleteOptions,
) -> Result<Response<Body>, Status> {
    call.check_namespace()?;
    // As upstream, which lists what it deletes by pages.
    let from = list::begin(call, query, true).await?;
    let (mut page, matching) = list::cut(call, &from, filter, query.limit).await?;
    if !matching.is_empty() {
        call.refuse_unsupported()?;
    }
    let mut deletions = pin!(at_once::each(matching.clone(), |object| async move {
        if options.dry_run {
            // Which waits for no store: others' requests are not to wait for all of it.
            tokio::task::yield_now().await;
        }
        let deleted = delete_object(call, object.namespace(), object.name(), options).await;
        deleted.map(drop)
    }));
    while let Some(result) = deletions.next().await {
        match result {
            // Someone else was faster.
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    // Told is what was found, not what was left of it.
    let items = conversion::objects(&call.server, &call.row, matching).await?;
    page.source = Source::Items(items.into_iter());
    respond_list(call, page).await
}

pub enum Outcome {
    /// Removed; the last state.
    Gone(Value),
    /// Marked, waiting for a grace period or finalizers.
    Waits(Written),
}

/// Deletes an object of the call's resource.
pub async fn delete_object(
    call: &Call,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome, Status> {
    let target = call.target(namespace, name, options.dry_run)?;
    let mut deletion = Delete { call, name, options };
    Ok(match guaranteed_update(target, &mut deletion).await? {
        Done::Written(written) => Outcome::Waits(written),
        Done::Removed(mut last, revision) => {
            if let Some(revision) = revision {
                meta::set(&mut last, &["metadata", "resourceVersion"], revision.to_string());
            }
            Outcome::Gone(last)
        }
    })
}

struct Delete<'a> {
    call: &'a Call,
    name: &'a str,
    options: &'a DeleteOptions,
}

impl Attempt for Delete<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let Delete { call, name, options } = *self;
        let resource = &call.row.resource;
        let Some(object) = &current.object else {
            return Err(Status::not_found(call.row.group(), call.row.plural(), name));
        };
        check_preconditions(call, object, &current.value, options)?;
        let attributes = call.attributes(Operation::Delete, name, Some(&current.value), Options::Delete(options));
        call.admit(&attributes, &mut Value::Null, &mut Vec::new()).await?;
        let beside = call.server.services().on_removal(resource, &current.value);
        as_planned(resource, current, options, beside).await
    }
}

/// What a deletion does to what is stored; `beside` is done where it removes the object.
pub async fn as_planned(
    resource: &Arc<Resource>,
    current: Current,
    options: &DeleteOptions,
    beside: Vec<Op>,
) -> Result<Step, Status> {
    let is_long = current
        .object
        .as_ref()
        .is_some_and(|found| found.is_longer_than_stored());
    if !is_long {
        return step(resource, current, options, beside);
    }
    // What is stored of it is read anew, for up to half a second. A request that names it runs beside the runtime all along;
    // who deletes many does for these alone.
    let (resource, options) = (resource.clone(), options.clone());
    let planning = job::blocking("deletion of a long object", move || {
        step(&resource, current, &options, beside)
    });
    planning.await.map_err(|failed| Status::internal(failed.to_string()))?
}

fn step(resource: &Arc<Resource>, current: Current, options: &DeleteOptions, beside: Vec<Op>) -> Result<Step, Status> {
    let managed = current.managed().clone();
    let print = |object: &Value| match &current.object {
        Some(found) => Printed::of_fields(resource, found, &["metadata"], object, &managed),
        None => Printed::of(resource, object, &managed),
    };
    Ok(match plan(resource, current.value, options, jiff::Timestamp::now()) {
        Plan::Pending => Step::Keep,
        Plan::Mark(object) => Step::Put(print(&object)?, Vec::new()),
        Plan::Remove(mut last) => {
            managers::put(&mut last, &managed);
            Step::Remove(last, beside)
        }
    })
}

pub fn check_preconditions(call: &Call, object: &Object, value: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let own = [meta::uid(value), &object.revision.to_string()];
    let asked = [options.uid.as_deref(), options.resource_version.as_deref()];
    let Some(differs) = (0..2).find(|&index| asked[index].is_some_and(|asked| asked != own[index])) else {
        return Ok(());
    };
    let (asked, own) = (asked[differs].unwrap_or_default(), own[differs]);
    let what = ["UID", "ResourceVersion"][differs];
    // Namespaces are looked at before the others are, in words of their own.
    if call.row.resource.semantics.deletion == Deletion::Emptied {
        let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {own}");
        return Err(Status::conflict(
            &call.row.resource.group,
            call.row.plural(),
            object.name(),
            &why,
        ));
    }
    let happened = ["deleted and then recreated", "modified"][differs];
    let why = format!(
        "the {what} in the precondition ({asked}) does not match the {what} in record ({own}). \
         The object might have been {happened}"
    );
    Err(Status::conflict(
        &call.row.resource.group,
        call.row.kind(),
        object.name(),
        &why,
    ))
}

#[derive(Debug, PartialEq)]
enum Plan {
    /// Deletion is under way and stays as it is.
    Pending,
    /// Store this: deletionTimestamp and finalizers.
    Mark(Value),
    /// Remove it now; this is its last state.
    Remove(Value),
}

/// What a deletion comes to.
fn plan(resource: &Resource, mut object: Value, options: &DeleteOptions, now: jiff::Timestamp) -> Plan {
    let deletion = resource.semantics.deletion;
    match deletion {
        Deletion::Emptied => return plan_namespace(object, options, now),
        Deletion::WithInstances if !meta::is_deleting(&object) => {
            crd::mark_deleted(&mut object, now);
            return Plan::Mark(object);
        }
        _ => {}
    }
    let (mut grace, mut changes) = (0, false);
    if deletion == Deletion::Graceful {
        match grace_of_pod(&object, options) {
            Grace::Pending => return Plan::Pending,
            Grace::Over => {}
            Grace::Shorten { seconds, at } => {
                (grace, changes) = (seconds, true);
                mark(&mut object, &at, seconds, false);
            }
            Grace::First(seconds) => {
                (grace, changes) = (seconds, true);
                let at = now
                    .saturating_add(jiff::SignedDuration::from_secs(seconds))
                    .unwrap_or(now);
                mark(&mut object, &time::rfc3339(at), seconds, true);
            }
        }
    }
    changes |= set_gc_finalizers(resource, &mut object, options);
    if grace > 0 {
        return Plan::Mark(object);
    }
    if meta::finalizers(&object).next().is_none() {
        return Plan::Remove(object);
    }
    // Finalizers are told by a deletionTimestamp that is not in the future.
    let first = !meta::is_deleting(&object);
    let late = meta::str_at(&object, &["metadata", "deletionTimestamp"])
        .and_then(time::parse)
        .is_none_or(|at| at > now);
    if late {
        mark(&mut object, &time::rfc3339(now), 0, first);
    } else if meta::i64_at(&object, &["metadata", "deletionGracePeriodSeconds"]) == Some(0) && !changes {
        // Who deletes at each of its events until it is gone would make the next one.
        return Plan::Pending;
    } else {
        meta::set(&mut object, &["metadata", "deletionGracePeriodSeconds"], 0);
    }
    Plan::Mark(object)
}

fn plan_namespace(mut object: Value, options: &DeleteOptions, now: jiff::Timestamp) -> Plan {
    if !meta::is_deleting(&object) {
        meta::set(&mut object, &["metadata", "deletionTimestamp"], time::rfc3339(now));
        meta::set(&mut object, &["status", "phase"], "Terminating");
        let orphan = options.orphan_dependents == Some(true) || options.propagation == Some(Propagation::Orphan);
        let mut finalizers = finalizers_without_gc(&object);
        if orphan {
            finalizers.push("orphan".into());
        } else if options.propagation == Some(Propagation::Foreground) {
            finalizers.push("foregroundDeletion".into());
        }
        store_finalizers(&mut object, finalizers);
        return Plan::Mark(object);
    }
    let waits = !meta::items(&object, &["spec", "finalizers"]).is_empty() || meta::finalizers(&object).next().is_some();
    if waits { Plan::Pending } else { Plan::Remove(object) }
}

enum Grace {
    First(i64),
    Shorten {
        seconds: i64,
        at: String,
    },
    Pending,
    /// Nothing more to wait for.
    Over,
}

fn grace_of_pod(pod: &Value, options: &DeleteOptions) -> Grace {
    let asked = options
        .grace_period
        .map(|seconds| if seconds < 0 { 1 } else { seconds });
    if meta::is_deleting(pod) {
        let own = meta::i64_at(pod, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        if own == 0 {
            return Grace::Over;
        }
        return match asked {
            Some(seconds) if seconds < own => {
                let at = meta::str_at(pod, &["metadata", "deletionTimestamp"]).and_then(time::parse);
                let at = at.map(|at| {
                    at.saturating_sub(jiff::SignedDuration::from_secs(own - seconds))
                        .unwrap_or(at)
                });
                let now = jiff::Timestamp::now();
                let at = at.unwrap_or(now);
                // The whole shorter period is over already: the node still gets a second to act on.
                let (at, seconds) = if at < now { (now, seconds.min(1)) } else { (at, seconds) };
                Grace::Shorten {
                    seconds,
                    at: time::rfc3339(at),
                }
            }
            _ => Grace::Pending,
        };
    }
    let ended = matches!(meta::string(pod, &["status", "phase"]), "Failed" | "Succeeded");
    if meta::string(pod, &["spec", "nodeName"]).is_empty() || ended {
        return Grace::First(0);
    }
    let own = meta::i64_at(pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
    Grace::First(asked.unwrap_or(if own < 0 { 1 } else { own }))
}

fn mark(object: &mut Value, at: &str, seconds: i64, first: bool) {
    let generation = meta::generation(object);
    let metadata = meta::metadata_mut(object);
    metadata.insert("deletionTimestamp".into(), at.into());
    metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
    if first && generation > 0 {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

/// Adds or removes the garbage collector's two finalizers as options and the kind's default say; whether that changes any.
fn set_gc_finalizers(resource: &Resource, object: &mut Value, options: &DeleteOptions) -> bool {
    let dependents = resource.semantics.dependents;
    if dependents == Dependents::None {
        return false;
    }
    let has = |name: &str| meta::finalizers(object).any(|own| own == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(propagation)) => (
            propagation == Propagation::Orphan,
            propagation == Propagation::Foreground,
        ),
        (None, None) if has("orphan") => (true, false),
        (None, None) if has("foregroundDeletion") => (false, true),
        (None, None) => (dependents == Dependents::Orphaned, false),
    };
    if orphan == has("orphan") && foreground == has("foregroundDeletion") {
        return false;
    }
    let mut finalizers = finalizers_without_gc(object);
    if orphan {
        finalizers.push("orphan".into());
    }
    if foreground {
        finalizers.push("foregroundDeletion".into());
    }
    store_finalizers(object, finalizers);
    true
}

fn finalizers_without_gc(object: &Value) -> Vec<Value> {
    meta::finalizers(object)
        .filter(|finalizer| !matches!(*finalizer, "orphan" | "foregroundDeletion"))
        .map(Value::from)
        .collect()
}

fn store_finalizers(object: &mut Value, finalizers: Vec<Value>) {
    let metadata = meta::metadata_mut(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_api::registry;

    use super::*;
    use crate::write;

    fn row(group: &str, plural: &str) -> &'static Resource {
        registry::find(group, "v1", plural).unwrap()
    }

    #[test]
    fn pods_end_gracefully() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pod = |node: &str, phase: &str| {
            json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30},
                   "status": {"phase": phase}})
        };
        let options = |grace| DeleteOptions {
            grace_period: grace,
            ..DeleteOptions::default()
        };
        let pods = row("", "pods");
        let Plan::Mark(marked) = plan(pods, pod("n", "Running"), &options(None), now) else {
            panic!("a running pod ends gracefully");
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(marked["metadata"]["generation"], 2);
        assert_eq!(plan(pods, marked.clone(), &options(None), now), Plan::Pending);
        assert_eq!(plan(pods, marked.clone(), &options(Some(60)), now), Plan::Pending);
        for (pod, grace) in [
            (pod("", "Pending"), None),
            (pod("n", "Succeeded"), None),
            (pod("n", "Running"), Some(0)),
        ] {
            assert!(matches!(plan(pods, pod, &options(grace), now), Plan::Remove(_)));
        }
        assert!(matches!(plan(pods, marked, &options(Some(0)), now), Plan::Remove(_)));
    }

    #[test]
    fn finalizers_hold_an_object() {
        let now = jiff::Timestamp::now();
        let held = json!({"metadata": {"name": "c", "finalizers": ["a/b"]}});
        let Plan::Mark(marked) = plan(row("", "configmaps"), held, &DeleteOptions::default(), now) else {
            panic!("held by a finalizer");
        };
        assert!(meta::is_deleting(&marked));
        let configmaps = row("", "configmaps");
        assert_eq!(
            plan(configmaps, marked.clone(), &DeleteOptions::default(), now),
            Plan::Pending
        );
        let foreground = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        assert!(matches!(plan(configmaps, marked, &foreground, now), Plan::Mark(_)));
        let free = json!({"metadata": {"name": "d"}});
        let Plan::Mark(marked) = plan(row("apps", "deployments"), free.clone(), &foreground, now) else {
            panic!("held for the garbage collector");
        };
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        let default = DeleteOptions::default();
        assert!(matches!(
            plan(row("batch", "jobs"), free.clone(), &default, now),
            Plan::Mark(_)
        ));
        assert!(matches!(
            plan(row("apps", "deployments"), free, &default, now),
            Plan::Remove(_)
        ));
    }

    /// Many are deleted by one request, whose thread serves others.
    #[tokio::test]
    async fn what_is_read_anew_of_a_long_object_is_read_beside_the_runtime() {
        let (resource, mut car) = crd::long_car();
        car["metadata"]["finalizers"] = json!(["a/b"]);
        let mut short = car.clone();
        short["spec"] = json!({});
        for (car, is_long) in [(car, true), (short, false)] {
            let object = write::object_at(resource.clone(), "/registry/example.org/cars/a".into(), &car, 8, 8);
            let found = Arc::new(crd::read(object.unwrap()));
            assert_eq!(found.is_longer_than_stored(), is_long);
            let current = Current {
                value: found.value().unwrap(),
                object: Some(found),
                rest: None,
            };
            let options = DeleteOptions::default();
            let mut planned = pin!(as_planned(&resource, current, &options, Vec::new()));
            let polled = futures::poll!(&mut planned);
            assert_eq!(polled.is_pending(), is_long);
            let step = match polled {
                std::task::Poll::Ready(step) => step,
                std::task::Poll::Pending => planned.await,
            };
            assert!(matches!(step, Ok(Step::Put(..))));
        }
    }
}
