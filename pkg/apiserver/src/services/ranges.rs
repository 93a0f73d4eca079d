//! Where cluster addresses come from: the ServiceCIDRs that are ready and are not about to go
//! (<https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/>). The cluster's own is the first of them.

use std::sync::Arc;

use ipnet::IpNet;
use mk8s_api::meta;
use parking_lot::Mutex;
use serde_json::Value;

use crate::watch_cache::{Cache, ResourceCache};

pub struct Ranges {
    own: IpNet,
    objects: Arc<ResourceCache>,
    /// What was made of the objects at a revision.
    known: Mutex<Option<(u64, Arc<[IpNet]>)>>,
}

impl Ranges {
    /// None where the cache has no such kind.
    pub fn new(own: IpNet, cache: &Cache) -> Option<Ranges> {
        Some(Ranges {
            own,
            objects: cache.resource("networking.k8s.io", "servicecidrs")?,
            known: Mutex::default(),
        })
    }

    /// The range that the cluster was made with.
    pub fn own(&self) -> IpNet {
        self.own
    }

    /// Those that addresses are taken from now.
    pub fn ready(&self) -> Arc<[IpNet]> {
        // Read first: what comes in between is read again the next time.
        let revision = self.objects.revision();
        if let Some((known, ranges)) = &*self.known.lock()
            && *known == revision
        {
            return ranges.clone();
        }
        let objects = self.objects.list("");
        let objects = objects.iter().filter_map(|object| object.value().ok());
        let ranges: Arc<[IpNet]> = ready(self.own, objects).into();
        *self.known.lock() = Some((revision, ranges.clone()));
        ranges
    }
}

/// A range is ready where one object of those that name it is. Before there is one for the cluster's own, that is ready all
/// the same: the cluster begins with addresses.
fn ready(own: IpNet, objects: impl Iterator<Item = Value>) -> Vec<IpNet> {
    let own = own.trunc();
    let mut own_is_ready = None;
    let mut ranges = vec![own];
    for object in objects {
        let ready = is_ready(&object);
        let cidrs = meta::items(&object, &["spec", "cidrs"]).iter();
        for cidr in cidrs.filter_map(|cidr| cidr.as_str()?.parse::<IpNet>().ok()) {
            let cidr = cidr.trunc();
            if cidr == own {
                own_is_ready = Some(ready || own_is_ready == Some(true));
            } else if ready && cidr.addr().is_ipv4() == own.addr().is_ipv4() && !ranges.contains(&cidr) {
                ranges.push(cidr);
            }
        }
    }
    if own_is_ready == Some(false) {
        ranges.remove(0);
    }
    ranges
}

/// One of which nobody says anything is: no controller may be there yet.
fn is_ready(object: &Value) -> bool {
    let condition = meta::condition(object, "Ready");
    !meta::is_deleting(object) && condition.is_none_or(|condition| meta::string(condition, &["status"]) == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_that_are_ready_and_stay() {
        let own = || "10.96.0.0/16".parse::<IpNet>().expect("a range");
        let of = |cidrs: &[&str], status: &str, metadata: Value| {
            let conditions = match status {
                "" => json!([]),
                status => json!([{"type": "Ready", "status": status}]),
            };
            json!({"metadata": metadata, "spec": {"cidrs": cidrs}, "status": {"conditions": conditions}})
        };
        let ready = |objects: Vec<Value>| {
            let ranges = super::ready(own(), objects.into_iter());
            ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(ready(vec![]), ["10.96.0.0/16"]);
        let own = |status, metadata| of(&["10.96.0.0/16"], status, metadata);
        assert_eq!(
            ready(vec![
                own("True", json!({})),
                of(&["10.1.0.0/24", "fd00::/112"], "", json!({}))
            ]),
            ["10.96.0.0/16", "10.1.0.0/24"]
        );
        assert_eq!(ready(vec![of(&["10.1.0.0/24"], "False", json!({}))]), ["10.96.0.0/16"]);
        let none: [&str; 0] = [];
        assert_eq!(ready(vec![own("True", gone.clone())]), none);
        assert_eq!(ready(vec![own("True", gone), own("True", json!({}))]), ["10.96.0.0/16"]);
    }
}
