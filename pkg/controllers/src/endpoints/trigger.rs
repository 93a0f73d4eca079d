//! When what a slice or an Endpoints object shows came about: annotation `endpoints.kubernetes.io/last-change-trigger-time`, from which
//! it is measured how long it takes until nodes route by it. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::Changes;
use crate::{meta, pod};

/// The annotation.
pub const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// When a pod became ready, or ceased to be.
fn changed_at(pod: &Pod) -> Option<Timestamp> {
    pod::condition(pod, "Ready")?
        .last_transition_time
        .as_ref()
        .map(|time| time.0)
}

/// Puts the time on all slices that are written: the earliest at which one of the endpoints that are new or otherwise than before
/// became so; where there was no slice before, the Service counts too. None at all where no time is known.
pub fn on_slices(changes: &mut Changes, service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) {
    if changes.create.is_empty() && changes.update.is_empty() {
        return;
    }
    let before: HashMap<_, _> = existing
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .filter_map(|endpoint| Some((part(endpoint)?, endpoint.conditions.as_ref())))
        .collect();
    let pods: HashMap<&str, &Pod> = pods.iter().map(|pod| (meta::uid(&**pod), &**pod)).collect();
    let written = changes
        .create
        .iter()
        .chain(&changes.update)
        .flat_map(|slice| &slice.endpoints);
    let changed = written.filter_map(|endpoint| {
        let part = part(endpoint)?;
        let news = before.get(&part) != Some(&endpoint.conditions.as_ref());
        news.then(|| changed_at(pods.get(part.0)?)).flatten()
    });
    let began = existing.is_empty().then(|| meta::created(service));
    let time = changed.chain(began).min();
    for slice in changes.create.iter_mut().chain(&mut changes.update) {
        put(&mut slice.metadata, time);
    }
}

/// What an endpoint is known by: its pod, and its addresses, which are in two slices where they are of two families.
fn part(endpoint: &Endpoint) -> Option<(&str, &[String])> {
    let uid = endpoint.target_ref.as_ref()?.uid.as_deref()?;
    Some((uid, &endpoint.addresses))
}

/// The same of an Endpoints object that is written in the place of `before`.
pub fn on_endpoints(next: &mut Endpoints, service: &Service, pods: &[Arc<Pod>], before: Option<&Endpoints>) {
    let was = before.map(shown).unwrap_or_default();
    let is = shown(next);
    let changed = pods.iter().filter(|pod| {
        let uid = meta::uid(&***pod);
        is.contains_key(uid) && is.get(uid) != was.get(uid)
    });
    let began = before.is_none().then(|| meta::created(service));
    let time = changed.filter_map(|pod| changed_at(pod)).chain(began).min();
    put(&mut next.metadata, time);
}

/// Which pods are shown, and whether as ready.
fn shown(endpoints: &Endpoints) -> HashMap<&str, bool> {
    let mut shown = HashMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (addresses, ready) in [(&subset.addresses, true), (&subset.not_ready_addresses, false)] {
            let uids = addresses
                .iter()
                .flatten()
                .filter_map(|address| address.target_ref.as_ref()?.uid.as_deref());
            shown.extend(uids.map(|uid| (uid, ready)));
        }
    }
    shown
}

fn put(metadata: &mut ObjectMeta, time: Option<Timestamp>) {
    match time {
        Some(time) => meta::set_annotation(metadata, TRIGGER, time.to_string()),
        None => {
            let annotations = metadata.annotations.as_mut();
            if let Some(annotations) = annotations
                && annotations.remove(TRIGGER).is_some()
                && annotations.is_empty()
            {
                metadata.annotations = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, second: u8) -> Arc<Pod> {
        let at = format!("2026-01-01T00:00:0{second}Z");
        let status = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"uid": uid}, "status": status})).unwrap())
    }

    fn slice(uids: &[(&str, bool)]) -> EndpointSlice {
        let endpoint = |(uid, ready): &(&str, bool)| json!({"addresses": [uid], "conditions": {"ready": ready}, "targetRef": {"uid": uid}});
        let endpoints: Vec<_> = uids.iter().map(endpoint).collect();
        serde_json::from_value(
            json!({"metadata": {"annotations": {TRIGGER: "old"}}, "addressType": "IPv4", "endpoints": endpoints}),
        )
        .unwrap()
    }

    #[test]
    fn the_earliest_of_what_changed_counts() {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})).unwrap();
        let pods = [pod("a", 3), pod("b", 5), pod("c", 1)];
        for (before, after, expected) in [
            (None, slice(&[("a", true)]), Some("2026-01-01T00:00:00Z")),
            (
                Some(slice(&[("c", true)])),
                slice(&[("c", true), ("b", true), ("a", true)]),
                Some("2026-01-01T00:00:03Z"),
            ),
            (
                Some(slice(&[("b", false)])),
                slice(&[("b", true)]),
                Some("2026-01-01T00:00:05Z"),
            ),
            (Some(slice(&[("a", true), ("b", true)])), slice(&[("b", true)]), None),
        ] {
            let existing: Vec<_> = before.into_iter().map(Arc::new).collect();
            let mut changes = Changes {
                update: vec![after],
                ..Changes::default()
            };
            on_slices(&mut changes, &service, &pods, &existing);
            assert_eq!(meta::annotation(&changes.update[0], TRIGGER), expected);
        }
    }

    #[test]
    fn a_pod_of_two_families_is_no_news_for_the_other_one() {
        let service: Service = serde_json::from_value(json!({})).unwrap();
        let pods = [pod("a", 3), pod("b", 5)];
        let mut v6 = slice(&[("a", true), ("b", true)]);
        for endpoint in &mut v6.endpoints {
            endpoint.addresses = vec![format!("fd00::{}", endpoint.addresses[0])];
        }
        let existing = [Arc::new(slice(&[("a", true), ("b", false)])), Arc::new(v6)];
        let mut changes = Changes {
            update: vec![slice(&[("a", true), ("b", true)])],
            ..Changes::default()
        };
        on_slices(&mut changes, &service, &pods, &existing);
        assert_eq!(
            meta::annotation(&changes.update[0], TRIGGER),
            Some("2026-01-01T00:00:05Z")
        );
    }
}
