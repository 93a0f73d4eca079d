//! IPAddresses that say they are a Service's and are not: of one that is gone, or that has another address. Whoever may write such
//! objects would else keep addresses from all Services. Each is looked at when it comes, and when the Service that it names goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mk8s_api::meta;
use mk8s_api::service_cidr::MANAGED_BY;
use mk8s_store::Expect;
use serde_json::{Value, json};
use smallvec::smallvec;
use tokio::time::Instant;

use super::{addresses_of, repair};
use crate::managers;
use crate::object::Object;
use crate::own_write;
use crate::state::State;
use crate::watch_cache::{EventKind, Next, ResourceCache, Watcher};
use crate::write::{self, Printed};

/// Of a Service that is not there: one may be on its way.
const GRACE: Duration = Duration::from_secs(60);
/// Of one that is there and has another address.
const SOON: Duration = Duration::from_secs(5);
/// Where the store takes no writes.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What becomes of an IPAddress.
#[derive(Debug, PartialEq)]
enum Verdict {
    Stays,
    /// It is looked at again.
    In(Duration),
    /// Why it goes: reason and text of the event.
    Goes(&'static str, String),
}

fn verdict(address: &Value, service: Option<&Value>, now: Timestamp) -> Verdict {
    let managed = meta::string(address, &["metadata", "labels", MANAGED_BY.0]) == MANAGED_BY.1;
    if !managed || meta::is_deleting(address) {
        return Verdict::Stays;
    }
    let name = meta::name(address);
    let parent = |key| meta::string(address, &["spec", "parentRef", key]);
    if !parent("group").is_empty() || parent("resource") != "services" {
        let text = format!("IPAddress {name} appears to have been modified, not referencing a Service: cleaning up");
        return Verdict::Goes("IPAddressNotAllocated", text);
    }
    let created = |object: &Value| {
        meta::string(object, &["metadata", "creationTimestamp"])
            .parse::<Timestamp>()
            .ok()
    };
    let age = created(address).map_or(GRACE, |at| {
        Duration::try_from(now.duration_since(at)).unwrap_or_default()
    });
    let of = format!("Service {}/{}", parent("namespace"), parent("name"));
    let Some(service) = service else {
        let text = format!("IPAddress: {name} for {of} appears to have leaked: cleaning up");
        return match GRACE.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => Verdict::In(left),
            None => Verdict::Goes("IPAddressNotAllocated", text),
        };
    };
    if addresses_of(service).iter().any(|own| own.to_string() == name) {
        return Verdict::Stays;
    }
    match SOON.checked_sub(age).filter(|left| !left.is_zero()) {
        Some(left) if created(address) >= created(service) => Verdict::In(left),
        _ => {
            let text = format!("IPAddress: {name} for {of} has a wrong reference; cleaning up");
            Verdict::Goes("IPAddressWrongReference", text)
        }
    }
}

/// Names of IPAddresses to be looked at, and when.
#[derive(Default)]
struct Due(HashMap<String, Instant>);

impl Due {
    fn at(&mut self, name: &str, wait: Duration) {
        self.0.insert(name.to_owned(), Instant::now() + wait);
    }

    /// Those of which it is time.
    fn take(&mut self) -> Vec<String> {
        let now = Instant::now();
        self.0.extract_if(|_, at| *at <= now).map(|(name, _)| name).collect()
    }

    async fn next(&self) {
        match self.0.values().min() {
            Some(at) => tokio::time::sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }
}

/// Looks at all there are, and from then on at what changes.
pub async fn run(state: Arc<State>) {
    let cache = |group, plural| state.cache().resource(group, plural);
    let (Some(addresses), Some(services)) = (cache("networking.k8s.io", "ipaddresses"), cache("", "services")) else {
        return;
    };
    let mut due = Due::default();
    let (snapshot, mut of_addresses) = addresses.watch_with_snapshot("", None);
    let (_, mut of_services) = services.watch_with_snapshot("", None);
    let later = |due: &mut Due, objects: &mut dyn Iterator<Item = Arc<Object>>| {
        objects.for_each(|object| due.at(object.name(), Duration::ZERO));
    };
    later(&mut due, &mut snapshot.iter().cloned());
    drop(snapshot);
    loop {
        let (news, missed) = changes(&mut of_addresses);
        for (kind, address) in news {
            if kind != EventKind::Deleted {
                due.at(address.name(), Duration::ZERO);
            } else if address.value().is_ok_and(|last| meta::is_deleting(&last)) {
                // It had to wait for its finalizers.
                make_good(&state, &services, address.name()).await;
            }
        }
        let (gone, missed_too) = changes(&mut of_services);
        for (_, service) in gone.into_iter().filter(|(kind, _)| *kind == EventKind::Deleted) {
            let service = service.value().unwrap_or_default();
            addresses_of(&service)
                .iter()
                .for_each(|own| due.at(&own.to_string(), Duration::ZERO));
        }
        if missed || missed_too {
            let (snapshot, fresh) = addresses.watch_with_snapshot("", None);
            later(&mut due, &mut snapshot.iter().cloned());
            (of_addresses, of_services) = (fresh, services.watch_with_snapshot("", None).1);
        }
        for name in due.take() {
            if let Some(wait) = look(&state, &addresses, &services, &name).await {
                due.at(&name, wait);
            }
        }
        tokio::select! {
            () = of_addresses.changed() => {}
            () = of_services.changed() => {}
            () = due.next() => {}
        }
    }
}

/// What has changed, and whether some of it was missed.
fn changes(watcher: &mut Watcher) -> (Vec<(EventKind, Arc<Object>)>, bool) {
    let mut taken = Vec::new();
    let missed = matches!(watcher.take(&mut taken), Next::TooOld);
    (
        taken
            .into_iter()
            .map(|event| (event.kind, event.object.clone()))
            .collect(),
        missed,
    )
}

/// When it is to be looked at again, if it is.
async fn look(state: &State, addresses: &Arc<ResourceCache>, services: &ResourceCache, name: &str) -> Option<Duration> {
    let object = addresses.get("", name)?;
    let address = object.value().ok()?;
    let parent = |key| meta::string(&address, &["spec", "parentRef", key]);
    let service = services.get(parent("namespace"), parent("name"));
    let service = service.and_then(|service| service.value().ok());
    let (reason, text) = match verdict(&address, service.as_ref(), Timestamp::now()) {
        Verdict::Stays => return None,
        Verdict::In(wait) => return Some(wait),
        Verdict::Goes(reason, text) => (reason, text),
    };
    tracing::warn!(name, reason, text, "an IPAddress is removed");
    tell(state, &address, reason, &text).await;
    let deleted = own_write::delete(state, addresses, object.key.clone(), Some(object.revision)).await;
    if deleted.is_err() {
        return Some(TRY_AGAIN);
    }
    make_good(state, services, name).await;
    None
}

/// Whose an address is by right may have had nothing to show for it, as long as another said that it was its.
async fn make_good(state: &State, services: &ResourceCache, name: &str) {
    let owner = |service: &&Arc<Object>| {
        let value = service.value().unwrap_or_default();
        addresses_of(&value).iter().any(|own| own.to_string() == name)
    };
    for service in services.list("").iter().filter(owner) {
        repair::repair(state, service).await;
    }
}

/// An Event about an IPAddress, as upstream's repair writes it; that it can't be written changes nothing.
async fn tell(state: &State, about: &Value, reason: &str, note: &str) {
    const COMPONENT: &str = "ipallocator-repair-controller";
    let Some(events) = state.cache().resource("", "events") else {
        return;
    };
    let resource = events.resource();
    let now = Timestamp::now();
    let name = format!("{}.{:x}", meta::name(about), now.as_nanosecond());
    let mut event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {
            "name": name, "namespace": "default", "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": mk8s_api::time::rfc3339(now),
        },
        "involvedObject": {
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "name": meta::name(about),
            "uid": meta::string(about, &["metadata", "uid"]),
        },
        "type": "Warning", "reason": reason, "message": note, "action": "IPAddressAllocation",
        "eventTime": format!("{now:.6}"), "reportingComponent": COMPONENT, "reportingInstance": COMPONENT,
        "source": {},
    });
    let printed = resource
        .stored()
        .fill(&mut event)
        .map_err(|error| error.to_string())
        .and_then(|_| {
            let managed = managers::begun(&resource, &event);
            Printed::of(&resource, &event, &managed).map_err(|status| status.message)
        });
    let written = match printed {
        Ok(printed) => {
            let put = printed.put(events.key("default", meta::name(&event)), Expect::Absent).0;
            write::commit(state.store(), smallvec![put]).await.is_ok()
        }
        Err(_) => false,
    };
    if !written {
        tracing::debug!(reason, "an Event of an IPAddress is not written");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_goes_when_nobody_has_it() {
        let address = |resource: &str, managed: &str, created: &str| {
            json!({"metadata": {"name": "10.96.0.7", "creationTimestamp": created, "labels": {MANAGED_BY.0: managed}},
                "spec": {"parentRef": {"resource": resource, "namespace": "d", "name": "web"}}})
        };
        let service = |ip: &str| json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"clusterIP": ip}});
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let (old, young, newest) = ("2026-01-01T00:00:30Z", "2026-01-01T00:01:30Z", "2026-01-01T00:01:58Z");
        let own = MANAGED_BY.1;
        let goes = |reason, text: &str| Verdict::Goes(reason, text.to_owned());
        let leaked = "IPAddress: 10.96.0.7 for Service d/web appears to have leaked: cleaning up";
        let wrong = "IPAddress: 10.96.0.7 for Service d/web has a wrong reference; cleaning up";
        let modified = "IPAddress 10.96.0.7 appears to have been modified, not referencing a Service: cleaning up";
        for (address, service, expected) in [
            (
                address("services", own, old),
                Some(service("10.96.0.7")),
                Verdict::Stays,
            ),
            (
                address("services", own, old),
                None,
                goes("IPAddressNotAllocated", leaked),
            ),
            (
                address("services", own, young),
                None,
                Verdict::In(Duration::from_secs(30)),
            ),
            (
                address("services", own, old),
                Some(service("10.96.0.8")),
                goes("IPAddressWrongReference", wrong),
            ),
            (
                address("services", own, newest),
                Some(service("10.96.0.8")),
                Verdict::In(Duration::from_secs(3)),
            ),
            (
                address("gateways", own, newest),
                None,
                goes("IPAddressNotAllocated", modified),
            ),
            (address("services", "me", old), None, Verdict::Stays),
        ] {
            assert_eq!(verdict(&address, service.as_ref(), now), expected, "{address}");
        }
    }
}
